#!/usr/bin/env python3
"""Makes the inventory of every golden capture, in JSON and YAML, and validates it as OpenAPI 3.1.

Usage: check-inventory.py path/to/offpath captures/
Needs openapi-spec-validator and PyYAML; `make inventory-check` installs them.
"""
import glob
import json
import os
import subprocess
import sys
import tempfile

import yaml
from openapi_spec_validator import OpenAPIV31SpecValidator

binary, captures = sys.argv[1:]
inputs = sorted(p for p in glob.glob(f"{captures}/*/input.*"))
if len(inputs) < 20:
    sys.exit(f"only {len(inputs)} captures in {captures}")
failures = operations = 0
with tempfile.TemporaryDirectory() as folder:
    os.environ["OFFPATH_STATE_DIR"] = folder
    for capture in inputs:
        texts = {}
        for kind in ("json", "yaml"):
            path = f"{folder}/inventory.{kind}"
            subprocess.run([binary, "replay", "--quiet", capture, "--inventory", path], check=True)
            with open(path) as file:
                texts[kind] = file.read()
        document = json.loads(texts["json"])
        operations += sum(len([m for m in item if m not in ("parameters", "servers")]) for item in document["paths"].values())
        errors = [e.message for e in OpenAPIV31SpecValidator(document).iter_errors()]
        if yaml.safe_load(texts["yaml"]) != document:
            errors.append("YAML says something else than JSON")
        for error in errors:
            print(f"{capture}: {error}")
        failures += len(errors)
print(f"{len(inputs)} inventories with {operations} operations, {failures} mistakes")
sys.exit(1 if failures or operations < 50 else 0)
