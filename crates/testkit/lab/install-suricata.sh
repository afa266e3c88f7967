#!/usr/bin/env bash
# Installs Suricata from Debian's backports, for comparison only.
set -euo pipefail
command -v suricata >/dev/null && exit 0
list=/etc/apt/sources.list.d/bookworm-backports.list
grep -rqs bookworm-backports /etc/apt/sources.list /etc/apt/sources.list.d || echo "deb http://deb.debian.org/debian bookworm-backports main" > "$list"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -t bookworm-backports suricata >/dev/null
