# shellcheck shell=bash
# Sourced by scripts that run real peers on the loopback of a network namespace of their own: `here` is their folder.
# Starts them anew in the namespace, then gives `work`, a folder that goes at the end with what is in `pids`.
. "$here/spaces.sh"
[ -n "${IN_NAMESPACE:-}" ] || exec env IN_NAMESPACE=1 "$here/in-namespace.sh" "$0" "$@"

work=$(mktemp -d /tmp/offpath-loopback.XXXXXX)
chmod 755 "$work"
out=$work pids=""
cleanup() {
  for pid in $pids; do kill -9 "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT
# Frames as on a wire: no segments of 64 KB.
ip link set lo mtu 1500
ip link set lo gso_max_segs 1

# sized SIZE…: files whose name is their size, for all servers
sized() {
  mkdir "$work/www"
  for size in "$@"; do head -c "$size" /dev/zero | tr '\0' x > "$work/www/$size"; done
}
# nginx_conf: what nginx needs here, around the servers on standard input; a certificate for them
nginx_conf() {
  openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout "$work/key" -out "$work/cert" 2>/dev/null
  cat > "$work/nginx.conf" <<CFG
user root;
daemon off;
worker_processes 1;
pid $work/nginx.pid;
error_log $work/nginx.error.log warn;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path $work/body; proxy_temp_path $work/proxy; fastcgi_temp_path $work/f; uwsgi_temp_path $work/u; scgi_temp_path $work/s;
  keepalive_requests 100000;
  ssl_certificate $work/cert;
  ssl_certificate_key $work/key;
  root $work/www;
$(cat)
}
CFG
}
# start COMMAND…: in the background, its output in a file of its own
start() {
  "$@" > "$work/$(basename "$1").$RANDOM.log" 2>&1 & disown
  pids="$pids $!"
}
# listens PORT
listens() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1")
}
# none_dropped FILE: what tcpdump said, where it did not see every frame
none_dropped() {
  grep -q '^0 packets dropped by kernel' "$1" || { cat "$1"; exit 1; }
}
