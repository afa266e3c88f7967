#!/usr/bin/env python3
"""Asks tshark about every captures/tunnel-* and compares with the expected records.

The same requests must come out, nothing may be malformed, and the tunnel and VLAN ids that records name must be among
those that tshark reads from the frames of the flow. Usage: confirm-tunnels.py CAPTURES_FOLDER
"""
import json
import pathlib
import subprocess
import sys

# The field in which tshark shows the id of a tunnel type; None: the layer's name is all there is.
FIELDS = {
    "vxlan": "vxlan.vni", "geneve": "geneve.vni", "gre": "gre.key", "erspan": "erspan.spanid", "gtp-u": "gtp.teid",
    "mpls": "mpls.label", "pppoe": "pppoe.session_id",
}
LAYERS = {"erspan": "erspan", "ip-in-ip": "ip:ipv6", "teredo": "teredo"}


def tshark(capture, *arguments):
    # Segment by segment: tshark does not keep equal addresses behind different VNIs apart, and would take the second
    # network's segments for retransmissions.
    segments = ["-o", "tcp.desegment_tcp_streams:FALSE", "-o", "tcp.analyze_sequence_numbers:FALSE"]
    out = subprocess.run(["tshark", "-r", str(capture), *segments, *arguments], capture_output=True, text=True, check=True)
    return [line for line in out.stdout.splitlines() if line]


def number(text):
    return int(text, 16) if text.startswith("0x") else int(text)


def confirm(folder):
    capture = folder / "input.pcap"
    records = [json.loads(line) for line in (folder / "transactions.jsonl").read_text().splitlines()]
    wrong = []
    malformed = tshark(capture, "-Y", "_ws.malformed")
    if malformed:
        wrong.append(f"tshark calls {len(malformed)} frames malformed")
    rows = tshark(capture, "-Y", "http.request", "-T", "fields", "-E", "occurrence=a", "-e", "http.request.method",
                  "-e", "http.request.uri", "-e", "frame.protocols", "-e", "vlan.id", "-e", "ieee8021ad.id",
                  "-e", "erspan.vlan", *[x for field in FIELDS.values() for x in ("-e", field)])
    rows = [row.split("\t") for row in rows]
    key = lambda r: (r["http"]["request"]["method"], r["url"]["original"])
    if sorted((r[0], r[1]) for r in rows) != sorted(map(key, records)):
        wrong.append(f"requests differ: {[r[:2] for r in rows]} against {list(map(key, records))}")
    for record in records:
        row = next((r for r in rows if (r[0], r[1]) == key(record)), None)
        if row is None:
            continue
        ids = dict(zip(FIELDS, row[6:]))
        tunnel = record["offpath"]["tunnel"]
        kind = tunnel["type"]
        if "id" in tunnel and tunnel["id"] not in map(number, filter(None, ids[kind].split(","))):
            wrong.append(f"{kind} {tunnel['id']} is not in tshark's {ids[kind]}")
        if "id" not in tunnel and LAYERS[kind] not in row[2]:
            wrong.append(f"{kind} is not in tshark's {row[2]}")
        network = record["network"]
        vlans = [number(v) for v in ",".join(row[3:6]).split(",") if v]
        for vlan in [network.get("vlan"), network.get("inner", {}).get("vlan")]:
            if vlan and int(vlan["id"]) not in vlans:
                wrong.append(f"VLAN {vlan['id']} is not in tshark's {vlans}")
    return wrong


folders = sorted(pathlib.Path(sys.argv[1]).glob("tunnel-*"))
failed = 0
for folder in folders:
    wrong = confirm(folder)
    failed += bool(wrong)
    print(f"{folder.name:<28} {'; '.join(wrong) or 'confirmed'}")
if failed or not folders:
    sys.exit(f"{failed} of {len(folders)} captures are not confirmed")
