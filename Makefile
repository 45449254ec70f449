# The only entry. Everything a target needs beyond the Rust and Go toolchains it installs or builds itself; what is
# costly to build is kept under $(CACHE), keyed by a hash of its inputs, and built again when it is absent.

SHELL := /bin/bash
.DEFAULT_GOAL := help

export ZEROBRIDGE_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/zerobridge

TARGET := x86_64-unknown-linux-gnu
DENY_VERSION := 0.20.2
DENY := $(ZEROBRIDGE_CACHE)/cargo-deny-$(DENY_VERSION)/bin/cargo-deny
PROGRAMS := -p zerobridge-cni-sriov -p zerobridge-ipam -p zerobridge-device-plugin -p zerobridge-zbctl

.PHONY: help
help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

.PHONY: demo
demo: build ## boot a machine with SR-IOV and tell the whole story on screen
	@cargo run --quiet -p zerobridge-lab -- demo

.PHONY: test
test: lint lab unit scenarios ## everything that must hold: lint, unit and namespace tests, lab scenarios

.PHONY: unit
unit: ## unit and namespace tests of all crates
	cargo test --workspace --exclude zerobridge-scenarios

.PHONY: scenarios
scenarios: build ## scenarios in the lab, one test each
	cargo test -p zerobridge-scenarios

.PHONY: lint
lint: $(DENY) ## formatting, clippy, dependencies and their licences
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	$(DENY) --workspace --log-level warn check bans licenses sources

.PHONY: bench
bench: build lab ## figures: sizes, starts, the ledger, scans of 1,024 VFs, the daemon's memory and time, and in the lab
	ZEROBRIDGE_BIN_DIR=$(CURDIR)/target/$(TARGET)/release cargo bench --quiet -p zerobridge-cni-sriov --bench start
	cargo bench --quiet -p zerobridge-ledger --bench process
	cargo bench --quiet -p zerobridge-kernel --features testing --bench scan
	cargo bench --quiet -p zerobridge-device-plugin --bench allocate
	ZEROBRIDGE_BIN_DIR=$(CURDIR)/target/$(TARGET)/release cargo bench --quiet -p zerobridge-device-plugin --bench daemon
	@cargo run --quiet -p zerobridge-lab -- figures

.PHONY: build
build: ## the four programs, static, in target/$(TARGET)/release
	CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static" \
		cargo build --release --target $(TARGET) $(PROGRAMS)

.PHONY: lab
lab: ## prepare everything costly once: kernel, initramfs, kubelet, containerd, images
	@cargo run --quiet -p zerobridge-lab -- prepare

# Built once a version; it asks no advisory database, which CI machines may not reach.
$(DENY):
	cargo install --quiet --locked --version $(DENY_VERSION) --root $(dir $(patsubst %/,%,$(dir $@))) cargo-deny
