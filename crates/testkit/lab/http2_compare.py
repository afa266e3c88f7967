"""Compares transactions with the truth.

http2_compare.py whole NAME TRUTH TRANSACTIONS
    Every line of the truth is found once, with method, path, status and body lengths; nothing else is found.
http2_compare.py late:FRAME NAME TRUTH TRANSACTIONS WHOLE_TRANSACTIONS LATE_CAPTURE
    What is found is right, and nothing is found twice. Of the transactions that began after the join (the whole
    capture's transactions tell), every one is found, or stands among those whose request is said to be unknown.
http2_compare.py lossy NAME TRUTH TRANSACTIONS WHOLE_TRANSACTIONS
    What is found is right, and nothing is found twice.
A path of the truth that holds "abort" was given up by the client: its response is known to be cut, not where.
"""

import collections
import json
import re
import struct
import sys
from datetime import datetime, timezone


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def truth(path):
    told = {}
    for line in lines(path):
        target = line["path"]
        size = re.match(r"/sink\?(\d+)-", target)
        if size:
            line["request_bytes"] = int(size[1])
        elif "request_bytes" not in line:
            line["request_bytes"] = 0
        told.setdefault((line["method"], target), []).append(line)
    return told


def found(path):
    for line in lines(path):
        http, offpath = line.get("http", {}), line["offpath"]
        request, response = http.get("request"), http.get("response")
        yield {
            "time": line["@timestamp"],
            "version": http.get("version"),
            "method": request and request.get("method"),
            "path": line.get("url", {}).get("original"),
            "status": response and response.get("status_code"),
            "request_bytes": request and request.get("body", {}).get("bytes", 0),
            "response_bytes": response and response.get("body", {}).get("bytes", 0),
            "grpc_status": line.get("rpc", {}).get("grpc", {}).get("status_code"),
            "complete": offpath["complete"],
            "anomalies": offpath.get("anomalies", []),
            "id": line["event"]["id"],
            # What other fields of the heads say.
            "said": {
                "domain": line.get("url", {}).get("domain"),
                "agent": line.get("user_agent", {}).get("original"),
                "request type": request and request.get("mime_type"),
                "response type": response and response.get("mime_type"),
                "session": offpath["entities"].get("session"),
                "fingerprint": offpath["entities"].get("fingerprint"),
            },
        }


def first_frame(path):
    """Time of a capture's first frame, as records write it."""
    with open(path, "rb") as file:
        header = file.read(40)
    order = "<" if header[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    nanos = header[:4] in (b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d")
    seconds, fraction = struct.unpack(order + "II", header[24:32])
    day = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{day}.{fraction if nanos else fraction * 1000:09}Z"


def said_otherwise(whole, got):
    """What a transaction says that the same one of the whole capture does not say."""
    return [f"{member} {value}" for member, value in got["said"].items()
            if value is not None and all(value != other["said"][member] for other in whole)]


def differences(want, got, whole):
    """Names of what is wrong; a member that is not known late is not wrong."""
    wrong = []
    for member in ("status", "request_bytes", "response_bytes", "grpc_status"):
        if member not in want or got[member] == want[member]:
            continue
        if not whole and member == "status" and got[member] == 101 and not got["complete"]:
            continue  # The answer to the upgrade; the one to the request was lost.
        if "abort" in want["path"] and member == "response_bytes":
            continue
        if not whole and (got[member] is None or (member.endswith("bytes") and not got["complete"])):
            continue
        wrong.append(f"{member} {got[member]} instead of {want[member]}")
    version = want.get("protocol", "HTTP/2.0").removeprefix("HTTP/").removesuffix(".0")
    if got["version"] != version:
        wrong.append(f"version {got['version']} instead of {version}")
    if whole and not got["complete"] and "abort" not in want["path"]:
        wrong.append("not complete")
    return wrong


def main():
    mode, name, truth_path, found_path, *rest = sys.argv[1:]
    whole = mode == "whole"
    told, problems, right, unknown = truth(truth_path), [], 0, collections.Counter()
    taken = collections.Counter()
    expected = sum(map(len, told.values()))
    left = {key: list(value) for key, value in told.items()}
    seen_whole = collections.defaultdict(list)
    for got in found(rest[0]) if rest else ():
        seen_whole[got["method"], got["path"]].append(got)
    for got in found(found_path):
        if not got["path"] or not got["method"]:
            unknown["request half known" if got["method"] or got["path"] else "request unknown"] += 1
            if whole:
                problems.append(f"left open: {got}")
            elif got["path"] and not any(path == got["path"] for _, path in told):
                problems.append(f"invented: {got}")
            continue
        candidates = left.get((got["method"], got["path"]), [])
        if not candidates:
            again = (got["method"], got["path"]) in told
            problems.append(f"{'twice' if again else 'invented'}: {got}")
            continue
        want = candidates.pop(0)
        taken[got["method"], got["path"]] += 1
        wrong = differences(want, got, whole)
        if not whole:
            wrong += said_otherwise(seen_whole[got["method"], got["path"]], got)
        if wrong:
            problems.append(f"{got['method']} {got['path']}: {', '.join(wrong)} ({got['anomalies']})")
        else:
            right += 1
    if whole:
        problems += [f"missing: {key}" for key, lines_left in left.items() for _ in lines_left]
        print(f"{name}: {right} of {expected} right, {len(problems)} wrong")
    elif not mode.startswith("late:"):
        print(f"{name} {mode}: {right} of {expected} right, {len(problems)} wrong; "
              + (", ".join(f"{n} {kind}" for kind, n in unknown.items()) or "none unknown"))
    else:
        joined = first_frame(rest[1])
        after = [key for key, values in seen_whole.items() for got in values if got["time"] > joined]
        lost = sum((collections.Counter(after) - taken).values())
        if lost > unknown.total():
            problems.append(f"{lost} of those after the join are not found, and only {unknown.total()} are left open")
        print(f"{name} joined at frame {mode[5:]}: {right} right, {len(problems)} wrong; of the {len(after)} after it "
              f"{len(after) - lost} found; " + (", ".join(f"{n} {kind}" for kind, n in unknown.items()) or "none unknown"))
    for problem in problems[:10]:
        print("  " + problem)
    sys.exit(1 if problems else 0)


main()
