#!/usr/bin/env python3
"""Offpath and Suricata held against the same captures by the same judge: the tables of docs/reference/conformance.md.

Usage: conform-peers.py OFFPATH CORPUS [-v]

CORPUS is a folder with `conform.py` and `truth.ndjson`. Its judge runs three times: with Offpath, and with Suricata
(suricata-replay.py) as Debian configures it and with every setting on that helps it here. Then what the authors of the
captures expect themselves, where the corpus has it in a form that can be checked: Zeek's http.log, HAR files, the
`http` filters of Suricata's test.yaml, Arkime's sessions. -v: each expectation that does not hold.
"""
import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from urllib.parse import urlsplit

import yaml

offpath, corpus, verbose = sys.argv[1], pathlib.Path(sys.argv[2]), "-v" in sys.argv
suricata = pathlib.Path(__file__).resolve().parent / "suricata-replay.py"
HELP = "stream.midstream=true stream.async-oneside=true stream.reassembly.depth=0"
programs = [
    ("Offpath", offpath, ""),
    ("Suricata, Debian's settings", suricata, ""),
    ("Suricata, helped", suricata, HELP),
]
work = tempfile.TemporaryDirectory(prefix="offpath-peers.")
captures = [json.loads(line) for line in open(corpus / "truth.ndjson")]


def group(properties):
    """The kind of a capture: the first that fits."""
    def some(*prefixes):
        return any(p.startswith(prefixes) for p in properties)
    if some("tls:key log", "tls:keys", "enc:tls"):
        return "TLS with its keys"
    if some("h2:"):
        return "HTTP/2 in the clear"
    if any(p.startswith("enc:") and p != "enc:ipv6" for p in properties):
        return "tunnels and tags"
    if some("neg:"):
        return "no HTTP by the truth"
    if some("bad:", "attack"):
        return "malformed and attacks"
    if some("tcp:midstream", "tcp:lost", "tcp:one-sided", "tcp:overlap", "tcp:odd", "tcp:acked", "tcp:out of order", "fmt:packets cut"):
        return "loss, joined late, one side"
    return "plain HTTP/1"


def judged(command, settings):
    """What the corpus' judge says of a program, by capture."""
    out = pathlib.Path(work.name) / "judged.json"
    subprocess.run([corpus / "conform.py", command, "--json", out], check=True, stdout=subprocess.DEVNULL,
                   env={**os.environ, "SURICATA_SET": settings})
    return {row["file"]: row for row in json.load(open(out))}


def table(results, sure):
    """Matched and exact captures, extra and wrong lengths of each program, by group."""
    sums = collections.OrderedDict()
    for capture in captures:
        if sure and capture["doubts"]:
            continue
        for name in (group(capture["properties"]), "all"):
            row = sums.setdefault(name, collections.Counter())
            row["captures"] += 1
            row["expected"] += results["Offpath"][capture["file"]]["expected"]
            for program, found in results.items():
                one = found[capture["file"]]
                for what in ("matched", "extra", "lengths_wrong"):
                    row[program, what] += one[what]
                row[program, "exact"] += not (one["missing"] or one["extra"] or one["lengths_wrong"] or one["note"])
    print("| captures | number | transactions |" + "".join(f" {p} |" for p in results))
    print("|---|---|---|" + "---|" * len(results))
    for name in sorted(sums, key=lambda n: (n == "all", -sums[n]["expected"])):
        row = sums[name]
        cells = [f"{row[p, 'matched']} / {row[p, 'extra']} / {row[p, 'lengths_wrong']} / {row[p, 'exact']}" for p in results]
        print(f"| {name} | {row['captures']} | {row['expected']} | " + " | ".join(cells) + " |")
    print()


def events(command, settings, capture):
    """What a program finds in a capture: method, target, status, length and host of each."""
    out, path = pathlib.Path(work.name) / "events", corpus / capture["file"]
    out.unlink(missing_ok=True)
    keys = ["--keylog", f"{path}.keylog"] if os.path.exists(f"{path}.keylog") else []
    subprocess.run([command, "replay", path, "--transactions", out, "--quiet", *keys], stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, env={**os.environ, "SURICATA_SET": settings})
    found = []
    for line in open(out) if out.exists() else []:
        record = json.loads(line)
        http, url = record.get("http", {}), record.get("url", {})
        response = http.get("response", {})
        found.append({"method": http.get("request", {}).get("method"), "url": url.get("original"),
                      "status": response.get("status_code"), "length": response.get("body", {}).get("bytes"),
                      "host": url.get("domain")})
    return found


def expectations(capture):
    """What the authors expect: (whose, how many, whether exactly as many, conditions)."""
    sources = [e["file"] for e in capture["expected"] if e.get("file")]
    logs = [s for s in sources if pathlib.Path(s).name in ("http.log", "http.log.cut")]
    for source in sources:
        path = corpus / source
        if not path.exists() or source in logs[1:]:
            continue
        if source in logs:
            rows = [line.rstrip("\n").split("\t") for line in open(path, errors="replace")]
            names = next((r[1:] for r in rows if r[0] == "#fields"), None) or next((r for r in rows if r[0] == "ts"), [])
            wanted = collections.Counter()
            for row in rows:
                if row[0].startswith("#") or row[0] == "ts":
                    continue
                one = dict(zip(names, row))
                if {"method", "uri", "status_code"} <= one.keys():
                    status = one["status_code"]
                    wanted[one["method"], one["uri"], None if status in ("-", "0") else int(status)] += 1
            for (method, uri, status), count in wanted.items():
                if method != "-":
                    yield "Zeek, http.log", count, False, {"method": method, "url": uri, "status": status}
        elif source.endswith((".har", ".json")) and "pcap2har" in source or ".har" in path.suffix:
            wanted = collections.Counter()
            for entry in json.load(open(path))["log"]["entries"]:
                address = urlsplit(entry["request"]["url"])
                target = address.path + ("?" + address.query if address.query else "")
                wanted[entry["request"]["method"], target, (entry["response"] or {}).get("status") or None] += 1
            for (method, target, status), count in wanted.items():
                yield "pcap2har, HAR files", count, False, {"method": method, "url": target, "status": status}
        elif path.name == "test.yaml" and "suricata-verify" in source:
            names = {"http.http_method": "method", "http.url": "url", "http.status": "status", "http.length": "length",
                     "http.hostname": "host"}
            others = {"event_type", "http.protocol", "http.http_user_agent", "http.http_content_type", "tx_id", "pcap_cnt",
                      "proto", "dest_port", "http.redirect"}
            for check in yaml.safe_load(open(path)).get("checks") or []:
                wanted = (check.get("filter") or {}).get("match") or {}
                if wanted.get("event_type") == "http" and wanted.keys() <= names.keys() | others:
                    yield ("Suricata, filters of test.yaml", check["filter"]["count"], True,
                           {names[k]: v for k, v in wanted.items() if k in names})
        elif source.endswith(".test"):
            for session in json.load(open(path))["sessions3"]:
                http = session["body"].get("http") or {}
                for target in http.get("path") or []:
                    yield "Arkime, paths of sessions", 1, False, {"path": target}
                for status in http.get("statuscode") or []:
                    yield "Arkime, status of sessions", 1, False, {"status": status}


def holds(count, exactly, conditions, found):
    """Whether a program's events are as expected."""
    def same(event, name, value):
        if name == "path":
            return (event["url"] or "").split("?")[0] == value
        return event[name] == value
    number = sum(all(same(e, n, v) for n, v in conditions.items()) for e in found)
    return number == count if exactly else number >= count


def main():
    results = {name: judged(command, settings) for name, command, settings in programs}
    print("Truth without doubt: matched / extra / wrong lengths / captures without any difference\n")
    table(results, True)
    print("All captures: matched / extra / wrong lengths / captures without any difference\n")
    table(results, False)
    sums, fails = collections.OrderedDict(), []
    for capture in captures:
        wanted = list(expectations(capture))
        if not wanted:
            continue
        for name, command, settings in programs:
            found = events(command, settings, capture)
            for whose, *expected in wanted:
                row = sums.setdefault(whose, collections.Counter())
                held = holds(*expected, found)
                row[name] += held
                row["expected"] += name == "Offpath"
                if name == "Offpath":
                    row["captures", capture["file"]] = 1
                if not held:
                    fails.append(f"{name}: {capture['file']}: {whose}: {expected}")
    print("What the authors expect: how much of it holds\n")
    print("| whose | captures | expectations |" + "".join(f" {name} |" for name, _, _ in programs))
    print("|---|---|---|" + "---|" * len(programs))
    for whose, row in sums.items():
        number = sum(1 for key in row if isinstance(key, tuple))
        print(f"| {whose} | {number} | {row['expected']} | " + " | ".join(str(row[name]) for name, _, _ in programs) + " |")
    if verbose:
        print("\n" + "\n".join(fails))


main()
