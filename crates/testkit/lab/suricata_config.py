#!/usr/bin/env python3
"""Debian's configuration of Suricata, with some kinds of events as its only output.

Usage: suricata_config.py FILE EVENT…     EVENT: http, http2, tls
"""
import pathlib
import re
import sys

EXTENDED = ("http", "tls")


def replaced(text, section, by):
    """`text` with another top-level section in place of its own."""
    text, count = re.subn(rf"(?ms)^{section}:\n.*?(?=^[a-z][a-z0-9-]*:)", lambda _: f"{section}:\n{by}\n", text, count=1)
    if not count:
        sys.exit(f"Suricata's configuration has no section {section}")
    return text


def configuration(*events):
    """With statistics, which the caller may take out as well."""
    types = "".join(f"        - {event}{':' if event in EXTENDED else ''}\n"
                    + ("            extended: yes\n" if event in EXTENDED else "") for event in events)
    text = pathlib.Path("/etc/suricata/suricata.yaml").read_text()
    return replaced(text, "outputs", "  - eve-log:\n      enabled: yes\n      filetype: regular\n      filename: eve.json\n"
                    f"      types:\n{types}")


def quiet(*events):
    """The same without statistics."""
    return replaced(configuration(*events), "stats", "  enabled: no\n")


if __name__ == "__main__":
    pathlib.Path(sys.argv[1]).write_text(quiet(*sys.argv[2:]))
