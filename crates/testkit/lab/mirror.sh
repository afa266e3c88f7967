#!/usr/bin/env bash
# A VXLAN mirror between network namespaces, read in four ways at once:
#
#   client 10.78.1.2 ── 10.78.1.1 server       plain HTTP
#      │ tc: what it sends     │ tc: what it sends
#      ▼ vxlan 77              ▼ vxlan 77            each host mirrors its own half, as cloud mirrors do
#   10.78.2.2 ─────────▶ sensor ◀───────── 10.78.3.2
#                          │ offpath attach --listen vxlan://0.0.0.0:4789, two workers, as a user without privileges
#                          │ offpath attach -i any, two workers
#                          │ offpath attach -i mir0 -i mir1 as a split tap: one direction each
#                          └ offpath replay --follow of what tcpdump writes
#
# The outer headers of the two directions differ, so the kernel gives them to different workers. Every transaction must
# come out of each, whole, with its VNI, and the books must balance. Usage: mirror.sh OFFPATH TESTKIT [OUTPUT_FOLDER]
set -euo pipefail

offpath=$1 testkit=$2
here=$(cd "$(dirname "$0")" && pwd)
connections=${CONNECTIONS:-300} requests=${REQUESTS:-4}
. "$here/spaces.sh"
open_spaces "${3:-lab-mirror-out}" opm-client opm-server opm-sensor

# link SPACE NAME ADDRESS PEER_SPACE PEER_NAME PEER_ADDRESS MTU
link() {
  ip -n "$1" link add "$2" type veth peer name "$5" netns "$4"
  ip -n "$1" addr add "$3" dev "$2"
  ip -n "$4" addr add "$6" dev "$5"
  # One segment a frame, as on a wire; the mirror's frames are longer by the tunnel.
  ip -n "$1" link set "$2" mtu "$7" gso_max_segs 1 up
  ip -n "$4" link set "$5" mtu "$7" gso_max_segs 1 up
}
link opm-client eth0 10.78.1.2/24 opm-server eth0 10.78.1.1/24 1500
link opm-client mir0 10.78.2.2/24 opm-sensor mir0 10.78.2.1/24 1600
link opm-server mir0 10.78.3.2/24 opm-sensor mir1 10.78.3.1/24 1600

# mirror SPACE LOCAL REMOTE: what the host sends on eth0 is copied into a VXLAN tunnel to the sensor.
mirror() {
  ip -n "$1" link add vx0 type vxlan id 77 local "$2" remote "$3" dstport 4789 dev mir0 nolearning
  ip -n "$1" link set vx0 mtu 1500 up
  mirror_from "$1" eth0 vx0
}
mirror opm-client 10.78.2.2 10.78.2.1
mirror opm-server 10.78.3.2 10.78.3.1

printf '[identity]\nkey_file = "%s/identity.key"\n' "$work" > "$work/sensor.toml"
in_ns opm-sensor "$offpath" replay --quiet --config "$work/sensor.toml" "$here/../../../captures/link-ethernet/input.pcap"

# attach NAME ARGUMENTS…
pids=()
attach() {
  local name=$1; shift
  in_ns opm-sensor "$offpath" attach "$@" --config "$work/sensor.toml" --transactions "$out/$name.jsonl" \
    --stats "$out/$name.json" > "$out/$name.log" 2>&1 &
  pids+=($!)
  wait_for "attach $*" grep -q 'attached to' "$out/$name.log"
}
# The listener runs without any privilege: as nobody, with an output folder of its own.
install -d -o nobody "$work/unprivileged"
cp "$work/identity.key" "$work/unprivileged/identity.key"
chown nobody "$work/unprivileged/identity.key"
printf '[identity]\nkey_file = "%s/unprivileged/identity.key"\n' "$work" > "$work/unprivileged/sensor.toml"
cp "$offpath" "$work/offpath"
in_ns opm-sensor setpriv --reuid nobody --clear-groups --bounding-set -all "$work/offpath" attach \
  --listen vxlan://0.0.0.0:4789 --workers 2 --config "$work/unprivileged/sensor.toml" \
  --transactions "$work/unprivileged/listen.jsonl" --stats "$work/unprivileged/listen.json" > "$out/listen.log" 2>&1 &
pids+=($!)
wait_for "attach --listen" grep -q 'attached to' "$out/listen.log"
attach any -i any --workers 2 --filter 'udp port 4789'
# The same as two taps, one per direction.
printf '[capture]\nsplit_tap = true\n' >> "$work/sensor.toml"
attach split -i mir0 -i mir1 --filter 'udp port 4789'
: > "$out/mirror.pcap"
in_ns opm-sensor tcpdump -i any -U -w "$out/mirror.pcap" -q udp port 4789 > "$out/tcpdump.log" 2>&1 &
dump=$!
wait_for tcpdump grep -q 'listening on' "$out/tcpdump.log"
in_ns opm-sensor "$offpath" replay --quiet --follow "$out/mirror.pcap" --workers 2 --config "$work/sensor.toml" \
  --transactions "$out/follow.jsonl" --stats "$out/follow.json" > "$out/follow.log" 2>&1 &
pids+=($!)

in_ns opm-server "$testkit" shop --listen 10.78.1.1:80 > "$out/shop.log" 2>&1 &
wait_for "the shop" in_ns opm-client curl -s -o /dev/null http://10.78.1.1/
in_ns opm-client python3 "$here/load.py" http://10.78.1.1 "$connections" "$requests"
sleep 1
kill "$dump"
wait "$dump" 2>/dev/null || true
for pid in "${pids[@]}"; do pkill -TERM -P "$pid" 2>/dev/null || kill -TERM "$pid"; done
failed=0
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
cp "$work"/unprivileged/listen.json* "$out/"
[ $failed = 0 ] || { echo "lab: a sensor failed"; tail -n 5 "$out"/*.log; exit 1; }
python3 "$here/mirror-judge.py" "$out" $((connections * requests))
