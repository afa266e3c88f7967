# shellcheck shell=bash
# What the labs share: namespaces, folders, and waiting for what comes up. Sourced, by scripts that set -euo pipefail.

# open_spaces FOLDER NAME…: makes network namespaces that end with the script, FOLDER for its results ($out, what earlier
# runs left there is removed), and a folder for what it needs meanwhile ($work).
open_spaces() {
  [ "$(id -u)" = 0 ] || { echo "the lab needs root (network namespaces)"; exit 1; }
  mkdir -p "$1"
  out=$(cd "$1" && pwd)
  rm -f "$out"/*.jsonl "$out"/*.json "$out"/*.log "$out"/*.txt "$out"/*.pcap
  shift
  spaces=("$@")
  work=$(mktemp -d /tmp/offpath-lab.XXXXXX)
  chmod 755 "$work"
  trap close_spaces EXIT
  local ns
  for ns in "${spaces[@]}"; do
    ip netns del "$ns" 2>/dev/null || true
    ip netns add "$ns"
    ip -n "$ns" link set lo up
  done
}

close_spaces() {
  local ns
  for ns in "${spaces[@]}"; do
    ip netns pids "$ns" 2>/dev/null | xargs -r kill -9 2>/dev/null || true
    ip netns del "$ns" 2>/dev/null || true
  done
  rm -rf "$work"
}

# in_ns SPACE COMMAND…
in_ns() {
  local ns=$1
  shift
  ip netns exec "$ns" "$@"
}

# wait_for WHAT COMMAND…: until the command succeeds, for ten seconds at most.
wait_for() {
  local what=$1
  shift
  for _ in $(seq 100); do
    "$@" > /dev/null 2>&1 && return 0
    sleep 0.1
  done
  echo "lab: $what did not come up"
  tail -n 20 "$out"/*.log || true
  exit 1
}

# mirror_from SPACE PORT TO [SIDE…]: copies what passes PORT (its egress, or the sides that are named) to the port TO.
mirror_from() {
  local ns=$1 port=$2 to=$3 side
  shift 3
  [ $# -gt 0 ] || set -- egress
  in_ns "$ns" tc qdisc add dev "$port" clsact
  for side in "$@"; do
    in_ns "$ns" tc filter add dev "$port" "$side" protocol ip prio 1 u32 match u32 0 0 \
      action mirred egress mirror dev "$to"
  done
}
