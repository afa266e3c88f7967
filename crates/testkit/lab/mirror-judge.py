#!/usr/bin/env python3
"""Checks that every sensor of mirror.sh saw every transaction. Usage: mirror-judge.py FOLDER TRANSACTIONS"""
import json
import pathlib
import sys

folder, wanted = pathlib.Path(sys.argv[1]), int(sys.argv[2])
failed = False
for name in ["listen", "any", "split", "follow"]:
    records = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
    records = [r for r in records if r.get("user_agent", {}).get("original") == "mirror-lab"]
    stats = json.loads((folder / f"{name}.json").read_text())
    seen = {r["url"]["original"] for r in records}
    whole = sum(r["offpath"]["complete"] and "status_code" in r["http"].get("response", {}) for r in records)
    vni = sum(r["offpath"].get("tunnel") == {"type": "vxlan", "id": 77} for r in records)
    handover = stats.get("handover", {})
    good = len(records) == len(seen) == whole == vni == wanted and stats["balanced"]
    failed |= not good
    frames, tcp = stats["capture"]["frames_total"], stats["decode"]["frames_tcp_total"]
    print(f"lab: {name:<7} {len(records)} of {wanted} transactions, {whole} whole, {vni} with VNI 77; {frames} frames, "
          f"{tcp} TCP, {handover.get('segments_handed_over_total', 0)} segments handed over, "
          f"{stats['capture']['kernel_dropped']} dropped by the kernel{'' if good else '  <- WRONG'}")
sys.exit(failed)
