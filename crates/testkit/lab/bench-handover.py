#!/usr/bin/env python3
"""What handing tunnelled segments over between live workers costs: what a fanout program could save at most.

The same traffic twice, as it is and in VXLAN, whose outer source port is a hash of one direction (as switches do it): by
`offpath attach --workers 2` over a veth pair at one rate, and by `offpath replay --workers 1`, where nothing is handed
over. What live capture takes longer for the tunnelled packets than a replay does, is the hand-over. Needs root. Usage:
bench-handover.py OFFPATH TESTKIT [PACKETS_A_SECOND]
"""
import json
import os
import pathlib
import signal
import struct
import subprocess
import sys
import tempfile
import zlib

import veth

offpath, testkit = sys.argv[1], sys.argv[2]
rate = int(sys.argv[3]) if len(sys.argv) > 3 else 30_000
ROUNDS, SPACE = 5, "opb-hand"
work = tempfile.TemporaryDirectory(prefix="offpath-handover.")
root = pathlib.Path(work.name)
env = {**os.environ, "OFFPATH_STATE_DIR": str(root / "state")}


def sh(*words, **options):
    return subprocess.run([str(w) for w in words], check=True, env=env, **options)


def in_vxlan(source, target):
    """Copies a capture of Ethernet frames, each in VXLAN; returns their number."""
    count = 0
    with open(source, "rb") as read, open(target, "wb") as write:
        write.write(read.read(24))
        while head := read.read(16):
            seconds, fraction, length, _ = struct.unpack("<4I", head)
            frame = read.read(length)
            client = frame[26:30] < frame[30:34]
            port = 49152 + zlib.crc32(frame[26:38]) % 16384
            ends = b"\x0a\0\0\1\x0a\0\0\2" if client else b"\x0a\0\0\2\x0a\0\0\1"
            udp = struct.pack(">4H", port, 4789, len(frame) + 16, 0) + struct.pack(">II", 0x0800_0000, 7 << 8)
            ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp) + len(frame), 0, 0, 64, 17, 0) + ends
            whole = b"\2\0\0\0\0\2\2\0\0\0\0\1\x08\0" + ip + udp + frame
            write.write(struct.pack("<4I", seconds, fraction, len(whole), len(whole)) + whole)
            count += 1
    return count


def used(child):
    """CPU seconds of a child that has ended."""
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit("offpath failed")
    return usage.ru_utime + usage.ru_stime


def live(capture):
    stats = root / "stats.json"
    child = subprocess.Popen(["ip", "netns", "exec", SPACE, offpath, "attach", "-i", "hand1", "--workers", "2", "--ring-mib",
                              "64", "--user", "", "--stats", stats], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                             text=True, env=env)
    for line in child.stderr:
        if "attached to" in line:
            break
    sh("ip", "netns", "exec", SPACE, "tcpreplay", "-i", "hand0", "--preload-pcap", f"--pps={rate}", capture,
       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    child.send_signal(signal.SIGTERM)
    child.stderr.read()
    seconds, ledger = used(child), json.loads(stats.read_text())
    return seconds, ledger


def replay(capture):
    return used(subprocess.Popen([offpath, "replay", capture, "--workers", "1", "--quiet"], env=env))


plain, tunnelled = root / "plain.pcap", root / "vxlan.pcap"
sh(testkit, "traffic", "--transactions", 40000, "--bytes", "60MB", "--seed", 1, "--out", plain, "--truth", root / "truth.jsonl")
packets = in_vxlan(plain, tunnelled)
with veth.pair(SPACE, "hand0", "hand1"):
    best, ledgers = {}, {}
    for _ in range(ROUNDS):
        for name, capture in [("plain", plain), ("vxlan", tunnelled)]:
            seconds, ledgers[name] = live(capture)
            for key, seconds in [(("live", name), seconds), (("replay", name), replay(capture))]:
                best[key] = min(best.get(key, seconds), seconds)
print(f"{packets} packets, {rate} a second, lowest CPU of {ROUNDS} runs, nanoseconds per packet")
for (how, name), seconds in sorted(best.items()):
    print(f"  {how:<7}{name:<7}{seconds / packets * 1e9:8.0f}")
for name, ledger in ledgers.items():
    handed = ledger.get("handover", {})
    print(f"  {name}: transactions {ledger['pipeline']['transactions_total']}, dropped by the kernel "
          f"{ledger['capture']['kernel_dropped']}, segments handed over {handed.get('segments_handed_over_total', 0)}")
extra = best["live", "vxlan"] - best["live", "plain"] - (best["replay", "vxlan"] - best["replay", "plain"])
print(f"the hand-over: {extra / packets * 1e9:.0f} ns per packet, {extra / best['live', 'vxlan'] * 100:.0f} % of the sensor's CPU")
