#!/usr/bin/env bash
# HTTP/2 made by real peers, on the loopback of a network namespace of its own, and what Offpath finds in it:
#
#   nghttpd    h2load (4 connections x 10 streams), nghttp with padding
#   nginx      h2load GET and POST, curl: HEAD, ranges, 304, 404, gzip, bodies up to 1 MB, heads over 16 KB, an abort
#   nghttpx    HTTP/1.1 upgraded to HTTP/2 by curl and nghttp, and prior knowledge
#   HAProxy    HTTP/2 on both sides, nginx behind it
#   gRPC       a Python server; Python and Ruby clients; unary, streaming, errors
#   TLS        nginx; curl with TLS 1.2 and 1.3, Chromium; read with the clients' key log, and live as they write it
#
# The truth is the servers' logs, and the clients' where the server has none. Each capture is replayed whole, when every
# transaction must be found and be right; then joined late at random frames, and with frames lost, swapped and repeated:
# then none may be wrong, and none that began after the join missing.
# Usage: http2.sh OFFPATH TESTKIT [OUTPUT_FOLDER]     JOINS=n late joins per capture (8).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
. "$here/on-loopback.sh"

offpath=$1 testkit=$2 out=${3:-lab-out/http2} joins=${JOINS:-8}
mkdir -p "$out"
out=$(cd "$out" && pwd)
rm -rf "${out:?}"/*
sized 0 1 100 1000 16384 16385 70000 1000000

{
  echo '<!doctype html><title>page</title>'
  for n in $(seq 20); do echo "<img src='/16385?image-$n'><script src='/100?script-$n'></script>"; done
  echo '<script>for (let n = 0; n < 10; n++) fetch("/sink?3-" + n, { method: "POST", body: "abc" })</script>'
} > "$work/www/page.html"

nginx_conf <<CFG
  client_max_body_size 10m;
  large_client_header_buffers 8 64k;
  types { text/html html; }
  default_type text/plain;
  log_format truth escape=json '{"port":\$server_port,"method":"\$request_method","path":"\$request_uri","status":\$status,"response_bytes":\$body_bytes_sent,"protocol":"\$server_protocol"}';
  server {
    listen 127.0.0.1:8002 http2;
    listen 127.0.0.1:8005 http2;
    listen 127.0.0.1:8443 ssl http2;
    ssl_protocols TLSv1.2 TLSv1.3;
    access_log $out/nginx.truth.jsonl truth;
    location / { }
    location /old { return 301 /100; }
    location /gzip { gzip on; gzip_min_length 1; alias $work/www/70000; }
    location /slow { limit_rate 20k; alias $work/www/1000000; }
    # Takes the whole body, and asks without it: a server that answers before it has read it all may reset.
    location /sink { proxy_pass http://127.0.0.1:8010; proxy_pass_request_body off; proxy_set_header Content-Length ""; }
  }
  server {
    listen 127.0.0.1:8010;
    location /sink { return 200 "taken\n"; }
  }
CFG
cat > "$work/haproxy.cfg" <<CFG
global
  maxconn 200
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend clear
  bind 127.0.0.1:8004 proto h2
  default_backend nginx
backend nginx
  server nginx 127.0.0.1:8005 proto h2
CFG

start nginx -c "$work/nginx.conf"
start haproxy -f "$work/haproxy.cfg"
start nghttpd --no-tls -b 64 -d "$work/www" 8001
start nghttpx -f '127.0.0.1,8003;no-tls' -b 127.0.0.1,8010 --no-ocsp --workers=1 \
  --accesslog-file="$out/nghttpx-upgrade.truth.jsonl" \
  --accesslog-format='{"port":8003,"method":"$method","path":"$path","status":$status,"response_bytes":$body_bytes_sent,"protocol":"$protocol_version"}'
start /usr/bin/python3 "$here/http2_grpc.py" 8006
for port in 8001 8002 8003 8004 8005 8006 8010 8443; do wait_for "port $port" listens $port; done

declare -A name=([8001]=nghttpd [8002]=nginx [8003]=nghttpx-upgrade [8004]=haproxy-front [8005]=haproxy-back [8006]=grpc [8443]=tls)
ports="8001 8002 8003 8004 8005 8006 8443"
dumps=""
for port in $ports; do
  tcpdump -i lo -n -s 0 -B 16384 -Z root -U -w "$out/${name[$port]}.pcap" "tcp port $port" 2> "$work/tcpdump.$port" &
  pids="$pids $!" dumps="$dumps $!"
done
for port in $ports; do
  wait_for tcpdump grep -q 'listening on' "$work/tcpdump.$port"
done

# targets PORT PREFIX COUNT: as many URLs, each used once
targets() {
  local sizes=(0 1 100 1000 1000 1000 16384 16385)
  for n in $(seq "$3"); do echo "http://127.0.0.1:$1/${sizes[$((n % 8))]}?$2-$n"; done
}
# files PORT < URLS: the truth of static files, for servers without a log
files() {
  sed -E "s#^http://[^/]*(/([0-9]+)[^ ]*)#{\"port\":$1,\"method\":\"GET\",\"path\":\"\1\",\"status\":200,\"response_bytes\":\2}#"
}
# load PORT NAME COUNT [OPTION…]: four connections at once, each with its own URLs
load() {
  local port=$1 tag=$2 count=$3 waits=""
  shift 3
  for c in 1 2 3 4; do
    targets "$port" "$tag$c" "$count" > "$work/urls.$port.$tag.$c"
    h2load -c 1 -m 10 -n "$count" "$@" -i "$work/urls.$port.$tag.$c" > "$work/h2load.$port.$tag.$c" &
    waits="$waits $!"
  done
  for pid in $waits; do wait "$pid"; done
  for c in 1 2 3 4; do
    grep -q "$count succeeded" "$work/h2load.$port.$tag.$c" || { cat "$work/h2load.$port.$tag.$c"; exit 1; }
  done
}

echo "== peers"
load 8001 a 250
cat "$work"/urls.8001.a.* | files 8001 > "$out/nghttpd.truth.jsonl"
for n in 1 2 3; do
  nghttp -n -b 100 "http://127.0.0.1:8001/1000?pad-$n" "http://127.0.0.1:8001/16385?pad-$n" > /dev/null
  printf 'http://127.0.0.1:8001/1000?pad-%s\nhttp://127.0.0.1:8001/16385?pad-%s\n' $n $n | files 8001 >> "$out/nghttpd.truth.jsonl"
done

load 8002 get 250
load 8004 get 100 -m 1 # HAProxy 2.6 closes connections to nginx that carry many streams (STREAM_CLOSED)
head -c 5000 /dev/zero > "$work/5000"
for c in 1 2; do
  for n in $(seq 50); do echo "http://127.0.0.1:8002/sink?5000-$c-$n"; done > "$work/posts.$c"
  h2load -c 1 -m 10 -n 50 -d "$work/5000" -i "$work/posts.$c" > /dev/null
done

echo "x-long: $(head -c 40000 /dev/zero | tr '\0' y)" > "$work/long"
clear() { curl -sS --http2-prior-knowledge "$@" > /dev/null || { echo "failed: curl $*"; return 1; }; }
requests() {
  local url=http://127.0.0.1:$1 size n
  # Many over one connection. curl 7.88 can't: it sends its preface again on a connection that it uses again.
  nghttp -n $(for n in $(seq 40); do echo "$url/100?n-$n"; done) > /dev/null
  nghttp -n $(for n in $(seq 20); do echo "$url/70000?p-$n"; done) > /dev/null
  nghttp -n -H ':method: HEAD' "$url/1000?heads-1" "$url/1000?heads-2" > /dev/null
  nghttp -n -H 'cookie: sid=0123456789abcdef; theme=dark' -H 'authorization: Bearer abcdef' $(for n in $(seq 5); do echo "$url/100?auth-$n"; done) > /dev/null
  nghttp -n --no-dep -t 5 -w 10 -W 12 "$url/70000?windows-1" "$url/70000?windows-2" > /dev/null
  nghttp -n --header-table-size=0 "$url/100?table-1" "$url/100?table-2" "$url/100?table-3" > /dev/null
  nghttp -n --header-table-size=65536 --encoder-header-table-size=0 "$url/100?tables-1" "$url/100?tables-2" > /dev/null
  clear -I "$url/1000?head"
  clear "$url/old?redirect"
  clear "$url/missing?a"
  clear -r 10-19 "$url/1000?range"
  clear -z "now" "$url/1000?unmodified"
  clear --compressed "$url/gzip?a"
  [ "$1" = 8004 ] || clear -H "@$work/long" "$url/100?long" # HAProxy's head must fit its buffer of 16 KB
  for size in 0 1 16384; do
    head -c $size /dev/zero > "$work/upload"
    clear --data-binary "@$work/upload" "$url/sink?$size-post"
    clear -T "$work/upload" "$url/sink?$size-put"
  done
  # Not by curl 7.88: now and then it sends a window's worth twice, and is answered with 400 or a reset.
  for size in 100000 1000000; do
    head -c $size /dev/zero > "$work/upload"
    nghttp -n -d "$work/upload" "$url/sink?$size-post"
    nghttp -n -H ':method: PUT' -d "$work/upload" "$url/sink?$size-put"
  done
  clear -X OPTIONS "$url/100?options"
  clear "$url/1000000?big"
  clear -m 0.5 "$url/slow?abort" > /dev/null 2>&1 || true
}
requests 8002
requests 8004

# Upgrades: the first request is HTTP/1.1, its response is stream 1.
for n in 1 2 3; do
  curl -sS --http2 "http://127.0.0.1:8003/1000?curl-$n" > /dev/null
  nghttp -n -u $(for m in 1000 100 16385 0 70000; do echo "http://127.0.0.1:8003/$m?nghttp-$n"; done) > /dev/null
  clear "http://127.0.0.1:8003/70000?prior-$n"
done

/usr/bin/python3 "$here/http2_grpc.py" 8006 python > "$out/grpc.truth.jsonl"
ruby "$here/http2_grpc.rb" 8006 >> "$out/grpc.truth.jsonl"

export SSLKEYLOGFILE=$out/tls.keys
# Live beside the capture: the key log is not there yet, and comes after the packets.
printf '[capture]\nuser = ""\n' > "$work/live.toml"
"$offpath" attach -i lo --filter 'tcp port 8443' --keylog "$SSLKEYLOGFILE" --config "$work/live.toml" \
  --transactions "$out/tls-live.jsonl" --stats "$out/tls-live.stats.json" > "$out/tls-live.report.txt" 2> "$work/live.log" &
live=$!
pids="$pids $live"
wait_for attach grep -q 'attached to' "$work/live.log"
secure() { curl -sS -k --http2 "$@" > /dev/null; }
for version in --tls-max=1.2 --tlsv1.3; do
  v=${version: -1}
  secure ${version/=/ } "https://127.0.0.1:8443/100?tls$v-[1-20]"
  secure ${version/=/ } --parallel --parallel-max 10 "https://127.0.0.1:8443/70000?tls$v-many-[1-20]" 2> /dev/null
  secure ${version/=/ } --data-binary "@$work/5000" "https://127.0.0.1:8443/sink?5000-tls$v"
  secure ${version/=/ } -I "https://127.0.0.1:8443/1000?tls$v-head"
done
for n in 1 2; do
  HOME=$work timeout 60 chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-background-networking \
    --ignore-certificate-errors --user-data-dir="$work/chromium$n" --ssl-key-log-file="$SSLKEYLOGFILE" --virtual-time-budget=5000 \
    --dump-dom "https://127.0.0.1:8443/page.html?$n" > "$work/chromium.html" 2> "$work/chromium.log"
  grep -q 'script-20' "$work/chromium.html" || { cat "$work/chromium.log"; exit 1; }
done
unset SSLKEYLOGFILE

sleep 1.5 # tcpdump gets its packets once a second
kill -TERM $live
wait $live || { cat "$work/live.log" "$out/tls-live.report.txt"; exit 1; }
for pid in $dumps; do kill -INT "$pid"; done
for pid in $dumps; do wait "$pid" || true; done
for port in $ports; do
  none_dropped "$work/tcpdump.$port"
done
# nginx knows both sides of HAProxy, which changes nothing.
grep '"port":8002' "$out/nginx.truth.jsonl" > "$work/nginx"
grep '"port":8005' "$out/nginx.truth.jsonl" > "$out/haproxy-back.truth.jsonl"
grep '"port":8443' "$out/nginx.truth.jsonl" > "$out/tls.truth.jsonl"
mv "$work/nginx" "$out/nginx.truth.jsonl"
cp "$out/haproxy-back.truth.jsonl" "$out/haproxy-front.truth.jsonl"

failed=0
echo "== live"
/usr/bin/python3 "$here/http2_compare.py" whole tls-live "$out/tls.truth.jsonl" "$out/tls-live.jsonl" || failed=1
/usr/bin/python3 -c 'import json, sys
d = json.load(open(sys.argv[1]))["decryption"]
print("waits: %(waits_total)d, served: %(waits_served_total)d; connections opened: %(connections_opened_total)d" % d)
sys.exit(d["waits_total"] == 0)' "$out/tls-live.stats.json" || failed=1
echo "== replays"
# again MODE IMPAIRMENT…: the capture with an impairment
again() {
  local mode=$1 late=$work/late
  shift
  "$testkit" impair "$capture.pcap" "$late.pcap" "$@" --kept /dev/null > /dev/null 2>&1
  "$offpath" replay "$late.pcap" $keys --transactions "$late.jsonl" > "$late.txt" 2>&1 || { cat "$late.txt"; failed=1; return; }
  /usr/bin/python3 "$here/http2_compare.py" "$mode" "$(basename "$capture")" "$capture.truth.jsonl" "$late.jsonl" \
    "$capture.jsonl" "$late.pcap" || { failed=1; cp "$late.pcap" "$capture.${mode/:/-}.pcap"; }
}
for port in $ports; do
  capture=$out/${name[$port]} keys=""
  [ "$port" = 8443 ] && keys="--keylog $capture.keys"
  "$offpath" replay "$capture.pcap" $keys --transactions "$capture.jsonl" > "$capture.report.txt" 2>&1 || { cat "$capture.report.txt"; failed=1; continue; }
  /usr/bin/python3 "$here/http2_compare.py" whole "${name[$port]}" "$capture.truth.jsonl" "$capture.jsonl" || failed=1
  frames=$(tcpdump -r "$capture.pcap" 2>/dev/null | wc -l)
  # A TLS connection whose hellos were missed stays closed: no key log names it.
  [ "$port" = 8443 ] && late=0 || late=$joins
  for join in $(seq "$late"); do
    RANDOM=$((port * 100 + join))
    skip=$(((RANDOM * 32768 + RANDOM) % frames))
    again "late:$skip" --skip-frames $skip
  done
  again "lossy" --loss 2 --swap 5 --dup 5
done
[ $failed = 0 ] && echo "all of it" || { echo "NOT all of it"; exit 1; }
