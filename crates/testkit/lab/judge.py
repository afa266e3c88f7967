#!/usr/bin/python3
"""Holds what the lab left against what must have happened; prints the times. judge.py FOLDER STATUS_AFTER_UNDO"""
import datetime
import glob
import json
import sys

folder, undone = sys.argv[1], sys.argv[2]


def lines(name):
    with open(f"{folder}/{name}") as f:
        return [json.loads(line) for line in f]


def when(text):
    whole, fraction = text.rstrip("Z").split(".")
    base = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.timezone.utc).timestamp()
    return base + float("0." + fraction)


failures = []


def must(condition, text):
    print(("ok    " if condition else "FAIL  ") + text)
    if not condition:
        failures.append(text)


people = [r for path in glob.glob(f"{folder}/people-*.jsonl") for r in lines(path.rsplit("/", 1)[1])]
stacks = sorted({r["stack"] for r in people})
must(len(stacks) == 5, f"people used {', '.join(stacks)}")
bad = [r for r in people if r["status"] == 403 or r["status"] == 0]
must(len(people) > 100 and not bad, f"{len(people)} responses to people, {len(bad)} of them refused")

one, many, decisions = lines("attack-one.jsonl"), lines("attack-many.jsonl"), lines("decisions.jsonl")
blocks = {}
for d in decisions:
    if d["action"] == "block" and "ip" in d["match"]:
        blocks.setdefault(d["match"]["ip"], d)
must(all(ip.startswith(("10.77.2.", "10.80.")) for ip in blocks), f"{len(blocks)} addresses blocked, all of them attackers")
first_403 = next((r for r in one if r["status"] == 403), None)
must(first_403 is not None, "the attacker got 403")
if first_403 and "10.77.2.66" in blocks:
    start, decided = one[0]["sent"], when(blocks["10.77.2.66"]["time"])
    leaked = sum(1 for r in one if r["status"] != 403 and r["time"] > decided)
    print(f"      time to detect: {decided - start:.3f} s after the first attempt, attempt {sum(1 for r in one if r['time'] <= decided + 0.001)}")
    print(f"      time to effect: {first_403['time'] - decided:.3f} s after the deciding packet, {leaked} requests leaked")
    after = [r for r in one if r["time"] > first_403["time"]]
    must(all(r["status"] == 403 for r in after), f"{len(after)} further attempts, all refused")
got = {r["client"] for r in many if r["status"] == 403}
must(len(got) >= 60, f"{len(got)} of 64 further attackers got 403")
must(undone == "200", f"after undoing the block the address gets {undone}")

stats = json.load(open(f"{folder}/stats.json"))
must(stats["balanced"], "the sensor's ledger balances")
must(stats["capture"]["kernel_dropped"] == 0, "no frame dropped by the kernel")
detect, deliver = stats["latency"]["packet_to_decision_us"], stats["delivery"]["decision_to_delivered_us"]
print(f"      packet to decision p50 {detect['p50'] / 1000:.1f} ms, p99 {detect['p99'] / 1000:.1f} ms; "
      f"decision to applied in HAProxy and answered p50 {deliver['p50'] / 1000:.1f} ms, p99 {deliver['p99'] / 1000:.1f} ms")
arrivals = lines("arrivals.jsonl")
took = sorted(1000 * (a["arrived"] - when(a["data"]["time"])) for a in arrivals if a["type"] == "offpath.decision.v1")
must(len(took) >= 60 and all(a["signed"] for a in arrivals), f"{len(took)} signed decisions arrived")
p99 = took[min(len(took) - 1, int(0.99 * len(took)))] if took else 9999
must(p99 < 250, f"deciding packet's last byte to the webhook's arrival: p50 {took[len(took) // 2]:.1f} ms, p99 {p99:.1f} ms (bar: 250 ms)")
transactions = lines("transactions.jsonl")
must(len(transactions) >= len(people) + len(one) + len(many) - len(stacks) * 3, f"{len(transactions)} transactions seen on the mirror")
raw = open(f"{folder}/transactions.jsonl").read() + open(f"{folder}/decisions.jsonl").read()
must("leaked" not in raw.replace("leaked_", "") and "victim" not in raw, "no password or user name in any record")
sys.exit(1 if failures else 0)
