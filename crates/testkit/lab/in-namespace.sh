#!/bin/sh
# Runs a test binary as root in a network namespace of its own: cargo's runner for the tests that need root.
set -e
if [ "$(id -u)" != 0 ]; then exec sudo -E "$0" "$@"; fi
# /sys shows the interfaces of the namespace that mounted it.
exec unshare --net --mount sh -c 'mount -t sysfs sysfs /sys && ip link set lo up && exec "$@"' in-namespace "$@"
