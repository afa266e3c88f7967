#!/usr/bin/env python3
"""Suricata behind the command line of `offpath replay`, so that one judge can hold both against the same truth.

Usage: suricata-replay.py replay CAPTURE --transactions OUT [--quiet] [--keylog FILE]

Runs Suricata on the capture with Debian's configuration and `http` and `http2` events as the only output, and writes
each event that is a request, a response or both as a record in Offpath's shape: method, target, host, status, body
bytes. Checksums are not looked at, as in Offpath. A compressed capture is unpacked first, which Suricata can't. The
key log is not used: Suricata decrypts nothing. SURICATA_SET: settings to add, `name=value` apart by spaces.
"""
import gzip
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import suricata_config

# Suricata waits for ever where it knows neither the file's format nor its link type.
PATIENCE_SECS = 15


def unpacked(capture, folder):
    """The capture, or its content in `folder` if it is compressed."""
    magic = pathlib.Path(capture).open("rb").read(4)
    plain = folder / "capture"
    if magic[:2] == b"\x1f\x8b":
        plain.write_bytes(gzip.open(capture).read())
    elif magic == b"\x28\xb5\x2f\xfd":
        subprocess.run(["zstd", "-dqf", capture, "-o", plain], check=True)
    else:
        return capture
    return plain


def record(event):
    """Our record of an event, or None if it is neither request nor response (settings of HTTP/2, for one)."""
    http = event.get("http", {})
    request, response, url = {}, {}, {}
    if http.get("http_method"):
        request["method"] = http["http_method"]
    # What Suricata gives as target of a response that has no request.
    if http.get("url") and http["url"] != "/libhtp::request_uri_not_seen":
        url["original"] = http["url"]
    if http.get("hostname"):
        url["domain"] = http["hostname"]
    if http.get("status"):
        response["status_code"] = int(http["status"])
    if "length" in http:
        response["body"] = {"bytes": http["length"]}
    if not request and not url.get("original") and "status_code" not in response:
        return None
    return {"http": {"request": request, "response": response}, "url": url}


def main():
    words = sys.argv[2:]
    options = {"--transactions": None, "--keylog": None}
    capture = None
    while words:
        word = words.pop(0)
        if word in options:
            options[word] = words.pop(0)
        elif not word.startswith("-"):
            capture = word
    with tempfile.TemporaryDirectory(prefix="offpath-suricata.") as name:
        folder = pathlib.Path(name)
        (folder / "suricata.yaml").write_text(suricata_config.quiet("http", "http2"))
        settings = [x for setting in os.environ.get("SURICATA_SET", "").split() for x in ("--set", setting)]
        command = ["suricata", "--runmode", "single", "-c", folder / "suricata.yaml", "-S", "/dev/null", "-k", "none",
                   "-r", unpacked(capture, folder), "-l", folder, *settings]
        try:
            code = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=PATIENCE_SECS).returncode
        except subprocess.TimeoutExpired:
            code = 3
        eve = folder / "eve.json"
        with open(options["--transactions"], "w") as out:
            for line in eve.open(errors="replace") if eve.exists() else []:
                found = record(json.loads(line))
                if found:
                    out.write(json.dumps(found) + "\n")
        sys.exit(code)


main()
