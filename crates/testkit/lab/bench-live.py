#!/usr/bin/env python3
"""Drop curves: the same capture over a veth pair at rising rates, into `offpath attach` and into Suricata.

Both get the same interface, the same two cores and the same memory for their rings, one after the other; the sender
(tcpreplay) runs on the other cores where there are any, else on the same two, and what it really sent is what counts.
A sender on the same two cores is at its end before either program is. There, both programs get the same share of the
cores' time (a control group's quota), so that both reach the rate at which they drop. Offered and dropped packets are
the kernel's counts of each program. Needs root. Usage:
bench-live.py OFFPATH TESTKIT OUTPUT_FOLDER [SECONDS] [RATE…]     CPU_SHARE=cores that each program gets (0: no quota)
"""
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

import suricata_config
import veth

offpath, testkit, folder = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
seconds = float(sys.argv[4]) if len(sys.argv) > 4 else 10.0
RING_MIB, SPACE = 16, "opb-live"
work = tempfile.TemporaryDirectory(prefix="offpath-live.")
root = pathlib.Path(work.name)
cores = sorted(os.sched_getaffinity(0))
sensor_cores, sender_cores = cores[:2], cores[2:] or cores[:2]
share = float(os.environ.get("CPU_SHARE", "0" if cores[2:] else "0.25"))
rates = [int(r) for r in sys.argv[5:]] or [int(r * 1000) for r in (
    [10, 20, 30, 40, 60, 80, 100, 120, 150, 180, 220] if share else [20, 50, 100, 150, 200, 300, 400, 600])]
PERIOD_US = 50_000


def sh(*words, **options):
    return subprocess.run([str(w) for w in words], check=True, **options)


def pinned(on, *words):
    return ["ip", "netns", "exec", SPACE, "taskset", "-c", ",".join(map(str, on)), *[str(w) for w in words]]


@contextlib.contextmanager
def quota():
    """A control group of `share` cores' time; yields what a child calls to enter it, or None without a quota."""
    if not share:
        yield None
        return
    first = pathlib.Path("/sys/fs/cgroup/cpu")
    group = (first if first.is_dir() else pathlib.Path("/sys/fs/cgroup")) / f"offpath-live-{os.getpid()}"
    group.mkdir()
    try:
        if first.is_dir():
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(int(share * PERIOD_US)))
        else:
            (group / "cpu.max").write_text(f"{int(share * PERIOD_US)} {PERIOD_US}")
        yield lambda: (group / "cgroup.procs").write_text(str(os.getpid()))
    finally:
        group.rmdir()


def configure_suricata():
    block = 1 << 20
    ring = ("  - interface: live1\n    threads: 2\n    cluster-id: 99\n    cluster-type: cluster_flow\n    defrag: yes\n"
            f"    use-mmap: yes\n    tpacket-v3: yes\n    block-size: {block}\n    ring-size: {RING_MIB * (1 << 20) // 2048}\n")
    text = suricata_config.replaced(suricata_config.configuration("http"), "af-packet", ring)
    (root / "suricata.yaml").write_text(text)


def lines(path):
    """Lines of a file, which goes."""
    with open(path, "rb") as file:
        count = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    os.unlink(path)
    return count


def replay(rate):
    """Sends at `rate` packets a second for `seconds`, over and over from new addresses; returns the rate reached."""
    out = sh(*pinned(sender_cores, "tcpreplay", "-i", "live0", "--preload-pcap", f"--pps={rate}", f"--duration={int(seconds)}",
                     "--loop=0", "--unique-ip", root / "traffic.pcap"), capture_output=True, text=True).stdout
    sent, took = re.search(r"Actual: (\d+) packets .* sent in ([\d.]+) seconds", out).groups()
    return int(sent) / float(took)


def with_offpath(rate, enter):
    stats = root / "stats.json"
    child = subprocess.Popen(pinned(sensor_cores, offpath, "attach", "-i", "live1", "--workers", 2, "--ring-mib", RING_MIB,
                                    "--user", "", "--stats", stats, "--transactions", root / "tx.jsonl"),
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=enter,
                             env={**os.environ, "OFFPATH_STATE_DIR": str(root / "state")})
    for line in child.stderr:
        if "attached to" in line:
            break
    reached = replay(rate)
    child.send_signal(signal.SIGTERM)
    child.stderr.read()
    if child.wait():
        sys.exit("offpath failed")
    capture = json.loads(stats.read_text())["capture"]
    return reached, capture["kernel_dropped"] / max(1, capture["kernel_received"]), lines(root / "tx.jsonl")


def with_suricata(rate, enter):
    for old in ["eve.json", "suricata.log", "out.log"]:
        (root / old).unlink(missing_ok=True)
    with open(root / "out.log", "w") as log:
        child = subprocess.Popen(pinned(sensor_cores, "suricata", "--af-packet=live1", "--runmode", "workers", "-c",
                                        root / "suricata.yaml", "-S", "/dev/null", "-k", "none", "-l", root, "-v"),
                                 stdout=log, stderr=log, preexec_fn=enter)
    for _ in range(600):
        time.sleep(0.1)
        if "Engine started" in (root / "out.log").read_text():
            break
    reached = replay(rate)
    child.send_signal(signal.SIGTERM)
    child.wait()
    said = re.findall(r"packets: (\d+), drops: (\d+)", (root / "out.log").read_text())
    if not said:
        sys.exit("suricata said nothing of drops:\n" + (root / "out.log").read_text()[-2000:])
    packets, drops = (sum(int(x[i]) for x in said) for i in (0, 1))
    # Suricata counts dropped packets among the received ones, as the kernel does.
    return reached, drops / max(1, packets), lines(root / "eve.json")


sh(testkit, "traffic", "--transactions", 60000, "--bytes", "100MB", "--seed", 1, "--out", root / "traffic.pcap", "--truth",
   root / "truth.jsonl")
with veth.pair(SPACE, "live0", "live1"):
    configure_suricata()
    curves = {"offpath attach": with_offpath, "Suricata 7": with_suricata}
    series, rows = [], []
    for name, measure in curves.items():
        points = []
        for rate in rates:
            with quota() as enter:
                reached, lost, written = measure(rate, enter)
            rows.append((name, rate, reached, lost * 100, written))
            print(f"{name:<15} asked {rate:>8} reached {reached:>9.0f} packets a second, dropped {lost * 100:6.2f} %, "
                  f"{written} transactions", flush=True)
            if reached < 0.7 * rate:
                # The sender is at its end: in the table only.
                break
            points.append([round(reached, -3), lost * 100])
        series.append({"name": name, "points": sorted(points)})
folder.mkdir(parents=True, exist_ok=True)
chart = {"title": "Packets dropped over the rate offered", "x": "packets a second", "y": "% dropped", "series": series}
(root / "chart.json").write_text(json.dumps(chart))
sh(testkit, "plot", root / "chart.json", folder / "live-drops.svg")
table = "| program | packets a second asked | reached | dropped | transactions written |\n|---|---|---|---|---|\n"
table += "".join(f"| {name} | {rate} | {reached:.0f} | {lost:.2f} % | {written} |\n" for name, rate, reached, lost, written in rows)
where = "cores of its own" if cores[2:] else "the same two cores"
held = f"; each program was held to {share:g} cores' time on these two, so that it drops within the sender's reach" if share else ""
(folder / "live-drops.md").write_text(
    "# Live drops\n\nMade by `make bench-live`; see [the benchmarks](README.md). The sender ran on "
    f"{where}{held}.\n\n![Packets dropped over the rate offered](live-drops.svg)\n\n{table}")
