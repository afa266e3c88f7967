#!/usr/bin/env bash
# The closed loop, on one machine, in network namespaces of its own:
#
#   people  10.77.1.0/24 ─┐                       ┌─ app     10.77.3.2   the shop
#                         ├─ waf (HAProxy, offpath receive) ─┤
#   attack  10.77.2.0/24 ─┘   │ tc mirred copies both ports  └─ control 10.77.9.0/30
#                             ▼
#                          sensor (offpath attach on the mirror; no address on it)
#
# Real clients browse and log in, an attacker stuffs credentials; the sensor sees the copy, decides, and its webhook
# makes HAProxy answer 403 to the attacker and to nobody else. Prints times and fails unless all of it happened.
# Usage: lab.sh OFFPATH TESTKIT [OUTPUT_FOLDER]     RECORD=1 keeps the mirrored traffic as a capture.
set -euo pipefail

offpath=$1 testkit=$2
here=$(cd "$(dirname "$0")" && pwd)
. "$here/spaces.sh"
open_spaces "${3:-lab-out}" opl-people opl-attack opl-waf opl-app opl-sensor

# link NAMESPACE NAME_IN_WAF NETWORK
link() {
  ip -n opl-waf link add "$2" type veth peer name eth0 netns "$1"
  ip -n opl-waf addr add "$3.1/24" dev "$2"
  ip -n opl-waf link set "$2" up
  ip -n "$1" link set eth0 up
}
link opl-people wpeople 10.77.1
link opl-attack wattack 10.77.2
link opl-app wapp 10.77.3
link opl-sensor wctl 10.77.9
ip -n opl-app addr add 10.77.3.2/24 dev eth0
ip -n opl-sensor addr add 10.77.9.2/24 dev eth0
for i in $(seq 11 20); do ip -n opl-people addr add 10.77.1.$i/24 dev eth0; done
ip -n opl-attack addr add 10.77.2.66/24 dev eth0
# The second wave: 64 attackers with a /24 each, so that each has to be found by itself.
for i in $(seq 0 63); do ip -n opl-attack addr add 10.80.$i.7/32 dev eth0; done
ip -n opl-waf route add 10.80.0.0/16 dev wattack
ip -n opl-people route add default via 10.77.1.1
ip -n opl-attack route add default via 10.77.2.1

# The mirror port: a link without addresses, fed by tc from both client-facing ports, both directions.
ip -n opl-waf link add wmirror type veth peer name mir0 netns opl-sensor
ip -n opl-waf link set wmirror up
ip -n opl-sensor link set mir0 up
for port in wpeople wattack; do
  mirror_from opl-waf $port wmirror ingress egress
done

secret="whsec_$(head -c 32 /dev/urandom | base64 -w0)"
printf '%s\n' "$secret" > "$work/secret"
: > "$work/offpath.map"
cat > "$work/haproxy.cfg" <<CFG
global
  stats socket $work/haproxy.sock mode 600 level admin
  maxconn 4000
defaults
  mode http
  timeout connect 2s
  timeout client 30s
  timeout server 30s
frontend shop
  bind 10.77.1.1:80
  bind 10.77.2.1:80
  http-request deny deny_status 403 if { src,map_ip($work/offpath.map) -m found }
  default_backend app
backend app
  server app 10.77.3.2:8080
CFG
cat > "$work/sensor.toml" <<CFG
[identity]
key_file = "$work/identity.key"

[capture]
workers = 2

[enforce]
dry_run = false
own_proxies = ["10.77.1.1/32", "10.77.2.1/32", "10.77.3.0/24"]

[delivery]
outbox_file = "$work/outbox.redb"

[[webhook]]
name = "haproxy"
url = "http://10.77.9.1:8900/v1/decisions"
secret_file = "$work/secret"

[[webhook]]
name = "clock"
url = "http://10.77.9.1:8901/"
secret_file = "$work/secret"
CFG
"$offpath" check "$work/sensor.toml"

in_ns opl-app "$testkit" shop --listen 10.77.3.2:8080 > "$out/shop.log" 2>&1 &
in_ns opl-waf haproxy -db -f "$work/haproxy.cfg" > "$out/haproxy.log" 2>&1 &
wait_for HAProxy test -S "$work/haproxy.sock"
in_ns opl-waf "$offpath" receive --listen 10.77.9.1:8900 --secret-file "$work/secret" --state "$work/receiver.redb" \
  --to "haproxy:$work/haproxy.sock?map=$work/offpath.map" --to "log:$out/applied.jsonl" > "$out/receive.log" 2>&1 &
in_ns opl-waf /usr/bin/python3 "$here/arrivals.py" 10.77.9.1 8901 "$out/arrivals.jsonl" 2> "$out/arrivals.log" &
wait_for "the clock" in_ns opl-waf curl -s -o /dev/null http://10.77.9.1:8901/
ip netns exec opl-sensor "$offpath" attach -i mir0 --config "$work/sensor.toml" --transactions "$out/transactions.jsonl" \
  --decisions "$out/decisions.jsonl" --stats "$out/stats.json" > "$out/attach.txt" 2> "$out/attach.log" &
sensor=$!
[ "${RECORD:-0}" = 0 ] || { in_ns opl-sensor tcpdump -i mir0 -U -w "$out/lab.pcap" 2> "$out/tcpdump.log" & }
wait_for "the shop behind HAProxy" in_ns opl-people curl -sf -o /dev/null http://10.77.1.1/
wait_for "the sensor" grep -q attached "$out/attach.log"

seconds=${SECONDS_OF_TRAFFIC:-25}
people=http://10.77.1.1
python=/usr/bin/python3
visitors=()
in_ns opl-people $python "$here/people.py" requests $people 10.77.1.11 user11 "$("$testkit" password user11)" $seconds > "$out/people-requests.jsonl" & visitors+=($!)
in_ns opl-people $python "$here/people.py" aiohttp $people 10.77.1.12 user12 "$("$testkit" password user12)" $seconds > "$out/people-aiohttp.jsonl" & visitors+=($!)
in_ns opl-people node "$here/people.mjs" $people 10.77.1.13 user13 "$("$testkit" password user13)" $seconds > "$out/people-node.jsonl" & visitors+=($!)
(
  end=$((SECONDS + seconds))
  while [ $SECONDS -lt $end ]; do
    for path in / /catalogue /login /item/7; do
      in_ns opl-people curl -s -o /dev/null --interface 10.77.1.14 -w "{\"client\":\"10.77.1.14\",\"stack\":\"curl\",\"path\":\"$path\",\"status\":%{http_code}}\n" $people$path
    done
    sleep 0.3
  done > "$out/people-curl.jsonl"
) & visitors+=($!)
(
  for path in / /catalogue /login; do
    in_ns opl-people chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
      --disable-background-networking --disable-component-update --disable-sync --user-data-dir="$work/chromium" \
      --dump-dom $people$path 2>/dev/null | grep -qi '</html>' \
      && echo "{\"stack\":\"chromium\",\"path\":\"$path\",\"status\":200}" || echo "{\"stack\":\"chromium\",\"path\":\"$path\",\"status\":0}"
  done > "$out/people-chromium.jsonl"
) & visitors+=($!)

sleep 4
echo "lab: the attack starts"
in_ns opl-attack $python "$here/attack.py" http://10.77.2.1 10.77.2.66 1 400 10 > "$out/attack-one.jsonl"
in_ns opl-attack $python "$here/attack.py" http://10.77.2.1 10.80.0.7 64 120 20 > "$out/attack-many.jsonl"
wait "${visitors[@]}"

in_ns opl-waf "$offpath" receive --listen 10.77.9.1:8900 --list > "$out/in-force.txt"
id=$($python - "$out/decisions.jsonl" <<'PY'
import json, sys
for line in open(sys.argv[1]):
    d = json.loads(line)
    if d["action"] == "block" and d["match"].get("ip") == "10.77.2.66":
        print(d["id"])
        break
PY
)
[ -n "$id" ] || { echo "lab: no block of the attacker"; cat "$out/attach.txt"; exit 1; }
in_ns opl-waf "$offpath" receive --listen 10.77.9.1:8900 --undo "$id"
undone=$(in_ns opl-attack curl -s --max-time 5 -o /dev/null --interface 10.77.2.66 -w '%{http_code}' http://10.77.2.1/)
kill -TERM $sensor
wait $sensor || { echo "lab: the sensor failed"; cat "$out/attach.log"; exit 1; }
cat "$out/attach.txt"
$python "$here/judge.py" "$out" "$undone"
