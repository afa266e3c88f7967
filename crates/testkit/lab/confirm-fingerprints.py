#!/usr/bin/env python3
"""Compares the handshakes that Offpath finds with tshark's, over every capture below a folder.

JA3 and JA3S are tshark's own. tshark before 4.2 has no JA4, so it is computed here from the fields that tshark reads
out of the hello (apart from Offpath's code), and compared with what other projects expect of the same captures where
`expected/` holds that. Usage: confirm-fingerprints.py OFFPATH FOLDER
"""
import collections
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

GREASE = {0x0A0A + 0x1010 * i for i in range(16)}
VERSIONS = {0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2"}
FIELDS = [
    "frame.number", "frame.protocols", "ip.src", "ipv6.src", "tcp.srcport", "udp.srcport", "tls.handshake.type",
    "tls.handshake.ja3", "tls.handshake.version", "tls.handshake.ciphersuite", "tls.handshake.extension.type",
    "tls.handshake.sig_hash_alg", "tls.handshake.sig_hash_alg_len", "tls.handshake.extensions.supported_version", "tls.handshake.extensions_alpn_str",
    "tls.handshake.extensions_server_name", "tls.handshake.ja3s", "ip.dst", "ipv6.dst", "tcp.dstport", "udp.dstport",
]


def tshark(capture, condition):
    arguments = ["tshark", "-r", str(capture), "-Y", condition, "-T", "fields", "-E", "separator=|", "-E", "occurrence=a"]
    for field in FIELDS:
        arguments += ["-e", field]
    out = subprocess.run(arguments, capture_output=True, text=True, errors="replace")
    for line in out.stdout.splitlines():
        yield dict(zip(FIELDS, line.split("|")))


def last(row, *names):
    for name in names:
        if row[name]:
            return row[name].split(",")[-1]
    return ""


def numbers(text):
    return [int(n, 0) for n in text.split(",") if n]


def digest(items):
    return hashlib.sha256(items.encode()).hexdigest()[:12] if items else "0" * 12


def signature_algorithms(row):
    """Returns those of the extension signature_algorithms; tshark lists those of delegated_credentials with them."""
    lists, rest = {}, numbers(row["tls.handshake.sig_hash_alg"])
    kinds = [k for k in numbers(row["tls.handshake.extension.type"]) if k in (13, 34)]
    for kind, length in zip(kinds, numbers(row["tls.handshake.sig_hash_alg_len"])):
        lists[kind], rest = rest[:length // 2], rest[length // 2:]
    return [n for n in lists.get(13, []) if n not in GREASE]


def ja4(row, transport):
    plain = lambda text: [n for n in numbers(text) if n not in GREASE]
    ciphers, kinds = plain(row["tls.handshake.ciphersuite"]), plain(row["tls.handshake.extension.type"])
    versions = plain(row["tls.handshake.extensions.supported_version"]) or numbers(row["tls.handshake.version"])[:1]
    alpn = row["tls.handshake.extensions_alpn_str"].split(",")[0]
    letters = alpn[0] + alpn[-1] if alpn else "00"
    if alpn and not (alpn[0].isascii() and alpn[0].isalnum() and alpn[-1].isascii() and alpn[-1].isalnum()):
        letters = f"{ord(alpn[0]):02x}"[0] + f"{ord(alpn[-1]):02x}"[-1]
    text = lambda values: ",".join(f"{v:04x}" for v in values)
    signatures = text(signature_algorithms(row))
    rest = text(sorted(k for k in kinds if k not in (0, 16))) + ("_" + signatures if signatures else "")
    head = transport + VERSIONS.get(max(versions), "00") + ("d" if 0 in kinds else "i")
    head += f"{min(len(ciphers), 99):02}{min(len(kinds), 99):02}{letters}"
    return f"{head}_{digest(text(sorted(ciphers)))}_{digest(rest)}"


def theirs(capture):
    """Returns (client ip, port, server ip, port) -> the first hello of each side, as tshark reads them."""
    found = collections.OrderedDict()
    for row in tshark(capture, "tls.handshake.type == 1"):
        kinds = row["tls.handshake.type"].split(",")
        ends = (last(row, "ip.src", "ipv6.src"), last(row, "tcp.srcport", "udp.srcport"),
                last(row, "ip.dst", "ipv6.dst"), last(row, "tcp.dstport", "udp.dstport"))
        if ends in found:
            continue
        quic = "quic" in row["frame.protocols"].split(":")
        single = kinds == ["1"]
        found[ends] = {
            "ja3": row["tls.handshake.ja3"].split(",")[0],
            "ja4": ja4(row, "q" if quic else "t") if single else None,
            "name": row["tls.handshake.extensions_server_name"].split(",")[0],
            "frame": row["frame.number"],
        }
    for row in tshark(capture, "tls.handshake.type == 2"):
        ends = (last(row, "ip.dst", "ipv6.dst"), last(row, "tcp.dstport", "udp.dstport"),
                last(row, "ip.src", "ipv6.src"), last(row, "tcp.srcport", "udp.srcport"))
        if ends in found and row["tls.handshake.ja3s"]:
            # After a HelloRetryRequest the second one counts.
            found[ends].setdefault("ja3s", []).extend(row["tls.handshake.ja3s"].split(","))
    return found


def ours(offpath, capture):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "connections.jsonl")
        subprocess.run([offpath, "replay", str(capture), "--connections", out, "--quiet"], check=False,
                       env={**os.environ, "OFFPATH_STATE_DIR": folder}, stderr=subprocess.DEVNULL)
        records = [json.loads(line) for line in open(out)] if os.path.exists(out) else []
    found = {}
    for record in records:
        ends = (record["source"]["ip"], str(record["source"]["port"]),
                record["destination"]["ip"], str(record["destination"]["port"]))
        tls = record.get("tls", {})
        found.setdefault(ends, {
            "ja3": tls.get("client", {}).get("ja3"), "ja4": tls.get("client", {}).get("ja4"),
            "name": tls.get("client", {}).get("server_name", ""), "ja3s": tls.get("server", {}).get("ja3s"),
        })
    return found


def expected(folder, capture):
    """Returns the JA4 texts that another project expects of a capture."""
    texts = set()
    project = capture.relative_to(folder).parts[0]
    stem = capture.name.split(".pcap")[0].split("__")[-1]
    for file in (folder / "expected" / project).rglob("*"):
        if file.is_file() and stem in file.name and file.stat().st_size < 1 << 24:
            texts |= set(re.findall(r"\b[qt][0-9a-z]{9}_[0-9a-f]{12}_[0-9a-f]{12}\b", file.read_text(errors="replace")))
    return texts


def main():
    offpath, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    total = collections.Counter()
    captures = sorted(f for f in folder.rglob("*.pcap*") if not f.name.endswith(".keylog") and "expected" not in f.parts)
    for capture in captures:
        them = theirs(capture)
        us = ours(offpath, capture)
        if not them and not us:
            continue
        wrong = []
        for ends, want in them.items():
            got = us.get(ends)
            total["hellos"] += 1
            if got is None:
                wrong.append(f"{ends}: not found (frame {want['frame']})")
                total["missing"] += 1
                continue
            for key in ["ja3", "ja4", "name"]:
                if want[key] is None:
                    continue
                total[key] += 1
                if (got[key] or "") != want[key]:
                    total[f"{key} differs"] += 1
                    wrong.append(f"{ends} {key}: {got[key]} instead of {want[key]} (frame {want['frame']})")
            if "ja3s" in want:
                total["ja3s"] += 1
                if got["ja3s"] not in want["ja3s"]:
                    total["ja3s differs"] += 1
                    wrong.append(f"{ends} ja3s: {got['ja3s']} instead of {want['ja3s']}")
        extra = [ends for ends, got in us.items() if ends not in them and got["ja3"]]
        total["extra"] += len(extra)
        wrong += [f"{ends}: tshark reads no ClientHello" for ends in extra]
        told = expected(folder, capture)
        if told:
            have = {got["ja4"] for got in us.values()}
            total["expected by others"] += len(told)
            total["expected by others, found"] += len(told & have)
            wrong += [f"another project expects {text}" for text in sorted(told - have)]
        print(f"{capture.relative_to(folder)}: {len(them)} hellos, {'equal' if not wrong else ''}")
        for line in wrong:
            print(f"    {line}")
    print(dict(total))
    failed = [key for key in total if key in ("missing", "ja3 differs", "ja4 differs", "ja3s differs", "name differs")]
    sys.exit(1 if failed or not total["hellos"] else 0)


main()
