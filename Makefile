# The same entry points for people and for CI. `make` prints this list.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO      ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
OFFPATH    := $(TARGET_DIR)/release/offpath
TESTKIT    := $(TARGET_DIR)/release/offpath-testkit
HOST_TRIPLE = $(shell rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
DEMO       := captures/demo-account-takeover/input.pcap.gz captures/demo-lab/input.pcap.gz
CAP        ?= $(firstword $(DEMO))
SUDO       := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
APT        := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends
# Installs the packages of $(1) that are missing; asks the archive for its list only when it has to.
need = @missing=""; for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; $(SUDO) apt-get update -qq; $(APT) $$missing >/dev/null; fi

.PHONY: help
help: ## print this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "%-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install the system packages that a build needs and that are missing
	$(call need,libpcap-dev gcc libc6-dev make)

.PHONY: setup-lab
setup-lab: setup ## install what the lab needs: HAProxy, curl, Chromium, Python and Node clients, tc
	$(call need,iproute2 haproxy curl tcpdump python3 python3-requests python3-aiohttp chromium nodejs)

.PHONY: build
build: setup ## build the release binaries
	$(CARGO) build --release --locked -p offpath -p offpath-testkit

.PHONY: run
run: setup ## the main job: replay the shipped demo captures and print their reports
	$(CARGO) build --release --locked -p offpath
	for capture in $(DEMO); do echo; echo "== $$capture"; $(OFFPATH) replay $$capture; done

.PHONY: replay
replay: setup ## replay one capture: make replay CAP=captures/…/input.pcap
	$(CARGO) build --release --locked -p offpath
	$(OFFPATH) replay $(CAP)

.PHONY: test
test: lint unit golden unit-root inventory-check lab lab-mirror lab-http2 ## everything that CI runs

.PHONY: check
check: lint unit ## lint and unit tests: fast, no root

.PHONY: lint
lint: setup ## formatting, clippy with denied warnings, docs with denied warnings
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --locked -q

.PHONY: unit
unit: setup ## unit, property and end-to-end tests: offline, no root
	@if $(CARGO) nextest --version >/dev/null 2>&1; then $(CARGO) nextest run --workspace --locked; \
	else $(CARGO) test --workspace --locked; fi
	$(CARGO) test --workspace --doc --locked -q

.PHONY: unit-root
unit-root: setup-lab ## tests of live capture, privileges and a real HAProxy, in a network namespace of their own (needs root)
	CARGO_TARGET_$(HOST_TRIPLE)_RUNNER=$(CURDIR)/crates/testkit/lab/in-namespace.sh \
		$(CARGO) test --locked -p offpath-capture --lib -- --ignored --test-threads 1
	CARGO_TARGET_$(HOST_TRIPLE)_RUNNER=$(CURDIR)/crates/testkit/lab/in-namespace.sh \
		$(CARGO) test --locked -p offpath-enforce --lib -- --ignored real_haproxy
	CARGO_TARGET_$(HOST_TRIPLE)_RUNNER=$(CURDIR)/crates/testkit/lab/in-namespace.sh \
		$(CARGO) test --locked -p offpath --test e2e -- --ignored overload

.PHONY: golden
golden: setup ## replay every golden capture with 1, 2 and 4 workers and compare
	$(CARGO) test --locked -p offpath --test e2e golden

.PHONY: golden-update
golden-update: setup ## rewrite the expected files of the golden captures, for review
	OFFPATH_UPDATE_GOLDEN=1 $(CARGO) test --locked -p offpath --test e2e golden

.PHONY: tunnels-tshark
tunnels-tshark: ## have tshark confirm the golden captures of tunnels
	$(call need,tshark python3)
	crates/testkit/lab/confirm-tunnels.py captures

.PHONY: inventory-check
inventory-check: setup ## validate the inventories of all golden captures as OpenAPI 3.1 (installs a validator from PyPI)
	$(call need,python3 python3-venv)
	$(CARGO) build --locked -p offpath
	test -x $(TARGET_DIR)/venv-openapi/bin/python || python3 -m venv $(TARGET_DIR)/venv-openapi
	@$(TARGET_DIR)/venv-openapi/bin/python -c 'from importlib.metadata import version; import yaml; \
	  raise SystemExit(version("openapi-spec-validator") != "0.9.0")' 2>/dev/null || \
	$(TARGET_DIR)/venv-openapi/bin/pip install -q --retries 2 openapi-spec-validator==0.9.0 pyyaml || \
	{ echo "inventory-check: openapi-spec-validator 0.9.0 is not in $(TARGET_DIR)/venv-openapi, and PyPI cannot be reached \
	to install it (for a mirror of PyPI set PIP_INDEX_URL)"; exit 1; }
	$(TARGET_DIR)/venv-openapi/bin/python crates/testkit/lab/check-inventory.py $(TARGET_DIR)/debug/offpath captures

.PHONY: fingerprints-tshark
fingerprints-tshark: build ## compare JA3, JA3S, JA4 with tshark's: make fingerprints-tshark CORPUS=folder-with-captures
	$(call need,tshark python3)
	crates/testkit/lab/confirm-fingerprints.py $(abspath $(OFFPATH)) $(or $(CORPUS),captures)

.PHONY: lab
lab: setup-lab build ## closed loop in network namespaces: mirror, attack, block, proof (needs root)
	$(SUDO) crates/testkit/lab/lab.sh $(abspath $(OFFPATH)) $(abspath $(TESTKIT))

.PHONY: lab-mirror
lab-mirror: setup-lab build ## a VXLAN mirror between namespaces: listener, interfaces, split tap, followed file (needs root)
	$(SUDO) crates/testkit/lab/mirror.sh $(abspath $(OFFPATH)) $(abspath $(TESTKIT))

.PHONY: lab-http2
lab-http2: setup build ## HTTP/2 by nghttp2, nginx, HAProxy, curl, Chromium and gRPC, in the clear, in TLS with a key log, joined late (needs root)
	$(call need,iproute2 tcpdump curl nghttp2-client nghttp2-server nghttp2-proxy nginx-light haproxy openssl chromium python3-grpcio ruby-grpc)
	$(SUDO) crates/testkit/lab/http2.sh $(abspath $(OFFPATH)) $(abspath $(TESTKIT))

.PHONY: conformance
conformance: build ## compare with captures made by others: make conformance CORPUS=folder-with-conform.py
	$(CORPUS)/conform.py $(OFFPATH)

.PHONY: conformance-suricata
conformance-suricata: build ## the same judge over Suricata's events, and what the captures' authors expect: CORPUS=folder-with-conform.py
	$(call need,python3 python3-yaml zstd)
	$(SUDO) crates/testkit/lab/install-suricata.sh
	crates/testkit/lab/conform-peers.py $(abspath $(OFFPATH)) $(abspath $(CORPUS))

.PHONY: bench
bench: setup ## micro benchmarks of every crate
	$(CARGO) bench --workspace --locked

.PHONY: bench-peers
bench-peers: build ## Suricata and tcpdump on the same capture in the same run
	$(call need,tcpdump python3)
	$(SUDO) crates/testkit/lab/install-suricata.sh
	crates/testkit/lab/bench-peers.sh $(OFFPATH) $(TESTKIT)

.PHONY: bench-layers
bench-layers: build ## HTTP/2 and TLS with a key log beside tshark and Suricata, on captures of real peers (needs root)
	$(call need,iproute2 tcpdump tshark nghttp2-client nghttp2-server nginx-light openssl python3)
	$(SUDO) crates/testkit/lab/install-suricata.sh
	$(SUDO) crates/testkit/lab/bench-layers.sh $(abspath $(OFFPATH))

.PHONY: bench-scale
bench-scale: build ## CPU per packet and memory from 1000 to 1 000 000 open flows: table and picture
	$(call need,python3)
	crates/testkit/lab/bench-scale.py $(OFFPATH) $(TESTKIT) docs/reference/benchmarks

.PHONY: bench-live
bench-live: build ## drop curves of Offpath and Suricata at rising packet rates: table and picture (needs root, a calm machine)
	$(call need,iproute2 python3 tcpreplay util-linux)
	$(SUDO) crates/testkit/lab/install-suricata.sh
	$(SUDO) crates/testkit/lab/bench-live.py $(abspath $(OFFPATH)) $(abspath $(TESTKIT)) docs/reference/benchmarks

.PHONY: bench-handover
bench-handover: build ## CPU of handing tunnelled segments over between live workers (needs root, a calm machine)
	$(call need,iproute2 python3 tcpreplay)
	$(SUDO) crates/testkit/lab/bench-handover.py $(abspath $(OFFPATH)) $(abspath $(TESTKIT))

.PHONY: fuzz-smoke
fuzz-smoke: ## 30 seconds per fuzz target (needs a nightly compiler and cargo-fuzz)
	@rustup run nightly rustc --version >/dev/null 2>&1 || { echo "fuzzing needs a nightly compiler: rustup toolchain install nightly"; exit 1; }
	@$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-fuzz
	cd crates/fuzz && for t in $$($(CARGO) +nightly fuzz list --fuzz-dir .); do mkdir -p corpus/$$t; $(CARGO) +nightly fuzz run --fuzz-dir . $$t corpus/$$t seeds/$$t -- -max_total_time=30 -rss_limit_mb=2048; done

.PHONY: fuzz
fuzz: ## fuzz one target until stopped: make fuzz T=http1_cuts
	@rustup run nightly rustc --version >/dev/null 2>&1 || { echo "fuzzing needs a nightly compiler: rustup toolchain install nightly"; exit 1; }
	@$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-fuzz
	cd crates/fuzz && mkdir -p corpus/$(T) && $(CARGO) +nightly fuzz run --fuzz-dir . $(T) corpus/$(T) seeds/$(T)

.PHONY: deps
deps: ## licences, advisories, duplicates (builds cargo-deny first: about 15 minutes)
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-deny
	$(CARGO) deny --config .cargo/deny.toml check

.PHONY: docs
docs: ## build the API documentation
	$(CARGO) doc --workspace --no-deps --document-private-items --locked

.PHONY: release
release: build ## stripped binary and completions under target/dist
	mkdir -p $(TARGET_DIR)/dist
	strip -o $(TARGET_DIR)/dist/offpath $(OFFPATH)
	for s in bash zsh fish; do $(OFFPATH) completions $$s > $(TARGET_DIR)/dist/offpath.$$s; done
