#!/usr/bin/env python3
"""Cost per packet and peak memory of a replay over the number of open flows: a table, and a picture.

Every run reads about the same number of frames, made on the fly: FLOWS connections that stay open, and as many rounds
of requests as it takes. A round asks once on each connection, so that between two packets of a connection lie those of
all others: the worst case for caches. CPU is user and system of the replay alone, one worker, the least of the runs.
Usage: bench-scale.py OFFPATH TESTKIT OUTPUT_FOLDER [FRAMES] [RUNS]
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

offpath, testkit, folder = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
frames_wanted = int(sys.argv[4]) if len(sys.argv) > 4 else 8_000_000
runs = int(sys.argv[5]) if len(sys.argv) > 5 else 3
SIZES = [1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000]
state = tempfile.TemporaryDirectory(prefix="offpath-scale.")


def run(flows):
    rounds = max(2, round(frames_wanted / flows / 2))
    stats = pathlib.Path(state.name, "stats.json")
    maker = subprocess.Popen([testkit, "flood", "--flows", str(flows), "--syns", "0", "--rounds", str(rounds), "--out",
                              "-"], stdout=subprocess.PIPE)
    reader = subprocess.Popen([offpath, "replay", "-", "--quiet", "--workers", "1", "--stats", str(stats)],
                              stdin=maker.stdout, env={**os.environ, "OFFPATH_STATE_DIR": state.name})
    maker.stdout.close()
    _, status, usage = os.wait4(reader.pid, 0)
    reader.returncode = os.waitstatus_to_exitcode(status)
    if maker.wait() or reader.returncode:
        sys.exit(f"{flows} flows: the run failed")
    ledger = json.loads(stats.read_text())
    seen, frames = ledger["pipeline"]["transactions_total"], ledger["capture"]["frames_total"]
    if seen != flows * rounds or not ledger["balanced"]:
        sys.exit(f"{flows} flows: {seen} transactions of {flows * rounds}")
    return (usage.ru_utime + usage.ru_stime) / frames * 1e9, usage.ru_maxrss / 1024, frames


rows = []
for flows in SIZES:
    measured = [run(flows) for _ in range(runs)]
    nanos, mib, frames = min(measured)
    rows.append((flows, nanos, mib, frames))
    print(f"{flows:>9} flows {frames:>9} frames {nanos:7.0f} ns CPU a frame {mib:7.0f} MiB", flush=True)

folder.mkdir(parents=True, exist_ok=True)
chart = {
    "title": "CPU per frame over the number of open flows", "x": "open flows", "y": "ns of CPU a frame", "log_x": True,
    "series": [{"name": "offpath replay", "points": [[flows, nanos] for flows, nanos, _, _ in rows]}],
}
source = pathlib.Path(state.name, "chart.json")
source.write_text(json.dumps(chart))
subprocess.run([testkit, "plot", source, folder / "scale.svg"], check=True)
table = "| open flows | ns of CPU a frame | against 1000 flows | peak memory |\n|---|---|---|---|\n"
table += "".join(f"| {flows} | {nanos:.0f} | {nanos / rows[0][1]:.2f} | {mib:.0f} MiB |\n" for flows, nanos, mib, _ in rows)
(folder / "scale.md").write_text("# Scale\n\nMade by `make bench-scale`; see [the benchmarks](README.md).\n\n"
                                 f"![CPU per frame over the number of open flows](scale.svg)\n\n{table}")
