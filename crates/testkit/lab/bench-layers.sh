#!/usr/bin/env bash
# HTTP/2 and TLS: Offpath beside tshark and Suricata on the same captures in the same run, in CPU seconds (user and
# system, the lowest of five runs, since the machine may be shared). Real peers make the captures, on the loopback of a
# network namespace of its own, in frames of 1500 bytes:
#
#   http2   h2load and nghttpd: HTTP/2 in the clear, 200 connections of 10 streams at a time
#   tls     h2load and nginx: HTTP/2 in TLS 1.3 and HTTP/1.1 in TLS 1.2, 100 connections each, with h2load's key log
#
# All programs write a line for each transaction; what each takes to start is measured apart and taken off. Suricata
# has no keys: of `tls` it reads the hellos alone. A connection stays under the megabyte after which Suricata's default
# configuration looks no further.
# Usage: bench-layers.sh OFFPATH [REQUESTS] [RUNS]
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
. "$here/on-loopback.sh"

offpath=$1 requests=${2:-20000} runs=${3:-5}
export OFFPATH_STATE_DIR="$work/state"

sized 100 1000 4000 16000
nginx_conf <<CFG
  ssl_session_cache off;
  ssl_session_tickets off;
  server { listen 127.0.0.1:8443 ssl http2; ssl_protocols TLSv1.3; }
  server { listen 127.0.0.1:8444 ssl; ssl_protocols TLSv1.2; }
CFG
start nginx -c "$work/nginx.conf"
start nghttpd --no-tls -d "$work/www" 8001
for port in 8001 8443 8444; do wait_for "port $port" listens $port; done

# urls SCHEME PORT
urls() {
  local sizes=(100 1000 1000 4000 16000)
  for n in $(seq 500); do echo "$1://127.0.0.1:$2/${sizes[$((n % 5))]}?item=$n&page=$((n % 7))"; done
}
# capture NAME FILTER COMMAND…: what COMMAND makes, into NAME.pcap; whole, or it is an error
capture() {
  local name=$1 filter=$2 dump
  shift 2
  tcpdump -i lo -n -s 0 -B 262144 -Z root -U -w "$work/$name.pcap" "$filter" 2> "$work/tcpdump" & dump=$!
  pids="$pids $dump"
  wait_for tcpdump grep -q 'listening on' "$work/tcpdump"
  "$@"
  sleep 2
  kill -INT "$dump"
  wait "$dump" || true
  none_dropped "$work/tcpdump"
}
# load COUNT CONNECTIONS STREAMS URLS [OPTION…]
load() {
  local count=$1 connections=$2 streams=$3 list=$4
  shift 4
  h2load -n "$count" -c "$connections" -m "$streams" -H 'user-agent: bench-layers' -H 'accept: */*' -i "$list" "$@" > "$work/h2load"
  grep -q "$count succeeded" "$work/h2load" || { cat "$work/h2load"; exit 1; }
}
secure() {
  export SSLKEYLOGFILE=$work/tls.keys
  load $((requests / 2)) 100 10 "$work/urls.tls13"
  load $((requests / 2)) 100 1 "$work/urls.tls12" --h1
  unset SSLKEYLOGFILE
}
urls http 8001 > "$work/urls.http2"
urls https 8443 > "$work/urls.tls13"
urls https 8444 > "$work/urls.tls12"
capture http2 'tcp port 8001' load "$requests" 200 10 "$work/urls.http2"
capture tls 'tcp port 8443 or tcp port 8444' secure

"$here/suricata_config.py" "$work/suricata.yaml" http http2 tls
cat > "$work/run.py" <<'PY'
"""Measures every program in turn, round after round, so that a change of the machine's speed meets all of them."""
import json, os, resource, subprocess, sys
offpath, work, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])
fields = ["-T", "fields"] + [x for f in ["frame.time_epoch", "ip.src", "tcp.srcport", "http.request.method", "http.request.uri",
    "http.response.code", "http2.streamid", "http2.headers.method", "http2.headers.path", "http2.headers.status"] for x in ("-e", f)]
heads = "http.request or http.response or http2.headers"
decode = ["-d", "tcp.port==8001,http2"]
# What it costs to start: the same commands on a capture of one frame.
head = open(f"{work}/http2.pcap", "rb").read(9040)
open(f"{work}/one.pcap", "wb").write(head[:40 + int.from_bytes(head[32:36], "little")])
def programs(name, capture):
    keys = f"{work}/tls.keys"
    tls = name == "tls"
    suricata = ["suricata", "--runmode", "single", "-c", f"{work}/suricata.yaml", "-S", "/dev/null", "-k", "none", "-r", capture, "-l", work]
    return {
        "tcpdump, frames only": (["tcpdump", "-r", capture, "-w", "/dev/null"], None),
        "offpath, 1 worker": ([offpath, "replay", capture, "--workers", "1", "--quiet", "--transactions", f"{work}/tx"]
                              + (["--keylog", keys] if tls else []), f"{work}/tx"),
        **({"offpath, 1 worker, no keys": ([offpath, "replay", capture, "--workers", "1", "--quiet", "--transactions", f"{work}/tx0",
                                            "--connections", f"{work}/connections"], f"{work}/connections")} if tls else {}),
        "suricata, single" + (", hellos only" if tls else ""): (suricata, f"{work}/eve.json"),
        "tshark, one line a head": (["tshark", "-r", capture, "-n", *(["-o", f"tls.keylog_file:{keys}"] if tls else decode), "-Y", heads, *fields],
                                   f"{work}/tshark"),
    }
def cpu(label, command, result):
    """User and system seconds of one run."""
    if result and os.path.exists(result):
        os.unlink(result)
    out = open(f"{work}/tshark", "w") if "tshark" in label else subprocess.DEVNULL
    child = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{command} failed")
    return used.ru_utime + used.ru_stime
def found(label, result):
    """Transactions in what a program wrote; without keys, handshakes."""
    lines = open(result, errors="replace").read().splitlines()
    if "suricata" in label:
        lines = [e for e in lines if json.loads(e)["event_type"] == "tls" or json.loads(e)["http"].get("http_method")]
    if "tshark" in label:
        # A frame may hold several heads: the methods in it, apart by commas.
        lines = [m for line in lines for cell in (3, 7) for m in line.split("\t")[cell].split(",") if m]
    return len(lines)
for name in ("http2", "tls"):
    start, whole, lines = {}, {}, {}
    for capture, best in ((f"{work}/one.pcap", start), (f"{work}/{name}.pcap", whole)):
        for _ in range(runs):
            for label, (command, result) in programs(name, capture).items():
                used = cpu(label, command, result)
                best[label] = min(used, best.get(label, used))
                if result:
                    lines[label] = found(label, result)
    size = os.path.getsize(f"{work}/{name}.pcap")
    print(f"\n{name}: {size} bytes\n")
    print("| what | CPU s | to start | MB/s of CPU, once started | against Offpath | found |\n|---|---|---|---|---|---|")
    net = {label: whole[label] - start[label] for label in whole}
    for label in whole:
        print(f"| {label} | {whole[label]:.3f} | {start[label]:.3f} | {size / 1e6 / net[label]:.0f} | "
              f"{net[label] / net['offpath, 1 worker']:.1f} | {lines.get(label, '')} |", flush=True)
PY
printf '%s requests each, lowest of %s runs, %s, tshark %s, %s\n' "$requests" "$runs" "$(suricata -V | grep -o 'version [0-9.]*')" \
  "$(tshark --version 2>/dev/null | sed -n '1s/[^0-9]*\([0-9.]*[0-9]\).*/\1/p')" "$(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2)"
[ -z "${KEEP:-}" ] || cp "$work"/*.pcap "$work/tls.keys" "$KEEP"
python3 "$work/run.py" "$offpath" "$work" "$runs"
