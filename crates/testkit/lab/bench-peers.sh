#!/usr/bin/env bash
# Offpath beside its peers on the same capture in the same run: CPU seconds (user + system) and ratios.
# Usage: bench-peers.sh OFFPATH TESTKIT [TRANSACTIONS] [BYTES]
set -euo pipefail
offpath=$1 testkit=$2 transactions=${3:-120000} bytes=${4:-200MB}
work=$(mktemp -d /tmp/offpath-bench.XXXXXX)
trap 'rm -rf "$work"' EXIT
cap="$work/traffic.pcap"
"$testkit" traffic --transactions "$transactions" --bytes "$bytes" --seed 1 --out "$cap" --truth "$work/truth.jsonl"
export OFFPATH_STATE_DIR="$work/state"
if command -v suricata >/dev/null; then
  "$(dirname "$0")/suricata_config.py" "$work/suricata.yaml" http
fi
# cpu COMMAND…: prints user+system seconds; the lowest of five runs, since the machine may be shared.
cpu() {
  python3 - "$@" <<'PY'
import resource, subprocess, sys, time
best = None
for _ in range(5):
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if best is None or used < best[0]:
        best = (used, wall)
print(f"{best[0]:.3f} {best[1]:.3f}")
PY
}
read -r tcpdump_cpu _ < <(cpu tcpdump -r "$cap" -w /dev/null)
read -r pipe_cpu _ < <(cpu "$offpath" replay "$cap" --workers 1 --quiet)
read -r one_cpu one_wall < <(cpu "$offpath" replay "$cap" --workers 1 --quiet --transactions "$work/tx.jsonl")
read -r two_cpu two_wall < <(cpu "$offpath" replay "$cap" --workers 2 --quiet --transactions "$work/tx2.jsonl")
suricata_cpu=0
if command -v suricata >/dev/null; then
  read -r suricata_cpu _ < <(cpu sh -c "rm -f $work/eve.json; exec suricata --runmode single -c $work/suricata.yaml -S /dev/null -k none -r $cap -l $work")
fi
cmp "$work/tx.jsonl" "$work/tx2.jsonl" && same="the same bytes"
printf '\n%s transactions, %s bytes, %s\n' "$transactions" "$(stat -c %s "$cap")" "$(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2)"
printf '%-58s %8s s CPU\n' "tcpdump -r F -w /dev/null" "$tcpdump_cpu" "offpath replay, 1 worker, no output" "$pipe_cpu" \
  "offpath replay, 1 worker, transactions" "$one_cpu" "offpath replay, 2 workers, transactions (${same:-DIFFERENT BYTES})" "$two_cpu" \
  "suricata --runmode single, http events" "$suricata_cpu"
python3 - <<PY
print(f"no output against tcpdump:     {$pipe_cpu / $tcpdump_cpu:.2f} times (bar: at most 3)")
print(f"suricata against one worker:   {$suricata_cpu / $one_cpu:.1f} times (bar: at least 10)")
print(f"two workers against one, wall: {$one_wall / $two_wall:.2f} times (bar: 1.8)")
print(f"events: offpath {sum(1 for _ in open('$work/tx.jsonl'))}, suricata {sum(1 for _ in open('$work/eve.json')) if $suricata_cpu else 0}")
PY
