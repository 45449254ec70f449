# The only entry. Everything a target needs beyond the Rust and Go toolchains it installs or builds itself; what is
# costly to build is kept under $(CACHE), keyed by a hash of its inputs, and built again when it is absent.

SHELL := /bin/bash
.DEFAULT_GOAL := help

export ZEROBRIDGE_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/zerobridge

TARGET := x86_64-unknown-linux-gnu
BUILT := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/$(TARGET)/release
DENY_VERSION := 0.20.2
DENY := $(ZEROBRIDGE_CACHE)/cargo-deny-$(DENY_VERSION)/bin/cargo-deny
FUZZ_SECONDS ?= 10
FUZZ_TARGETS := configuration result netlink frame
# Without position independence a program need not be relocated at each start, which is half of its start: 12,000 places on
# 43 pages, each of which the kernel must copy.
STATIC := -C target-feature=+crt-static -C relocation-model=static
# What a panic says of where it was would otherwise name the home of whoever built it, and the folder of what build scripts
# make. Other paths of this project are relative already, so two checkouts have the same programs.
REPRODUCIBLE := --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo \
	--remap-path-prefix=$(or $(CARGO_BUILD_BUILD_DIR),$(CARGO_TARGET_DIR),$(CURDIR)/target)=/build
PROGRAMS := -p zerobridge-cni-sriov -p zerobridge-ipam -p zerobridge-device-plugin -p zerobridge-zbctl

.PHONY: help
help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 20

.PHONY: demo
demo: build ## boot a machine with SR-IOV and tell the whole story on screen
	@cargo run --quiet -p zerobridge-lab -- demo

.PHONY: test
test: lint lab unit fuzz scenarios ## everything that must hold: lint, unit and namespace tests, fuzzing, lab scenarios

.PHONY: unit
unit: ## unit and namespace tests of all crates
	cargo test --workspace --exclude zerobridge-scenarios --exclude zerobridge-cluster

.PHONY: cluster
cluster: ## address blocks against a real etcd and API server, which are built once
	cargo test -p zerobridge-cluster

.PHONY: cluster-lab
cluster-lab: ## a cluster of two SR-IOV nodes with Multus, until Ctrl-C; other kinds: ARGS='--nodes 1 --image ARCHIVE'
	@cargo run --quiet -p zerobridge-cluster --bin cluster-lab -- $(or $(ARGS),--multus)

.PHONY: cluster-scenarios
cluster-scenarios: image ## scenarios in such clusters, one test each; no part of `test`, because they take half an hour
	cargo test -p zerobridge-cluster --test scenarios

.PHONY: scenarios
scenarios: build ## scenarios in the lab, one test each
	cargo test -p zerobridge-scenarios

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZ_SECONDS (10); what they find worth keeping stays under the cache
	RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/fuzz/instrumented cargo build --quiet \
		--target-dir $(ZEROBRIDGE_CACHE)/cargo-target -p zerobridge-fuzz
	@for target in $(FUZZ_TARGETS); do \
		found=$(ZEROBRIDGE_CACHE)/fuzz/$$target; mkdir -p $$found && \
		$(ZEROBRIDGE_CACHE)/cargo-target/debug/$$target -max_total_time=$(FUZZ_SECONDS) -timeout=10 \
			-artifact_prefix=fuzz/ -verbosity=0 -close_fd_mask=2 $$found fuzz/corpus/$$target \
			|| exit 1; \
		echo "fuzz $$target: nothing found"; \
	done

.PHONY: lint
lint: $(DENY) ## formatting, clippy, dependencies and their licences
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	$(DENY) --workspace --log-level warn check bans licenses sources

.PHONY: bench
bench: build lab ## figures: sizes, starts, the ledger, addresses, scans of 1,024 VFs, the daemon's memory and time, and in the lab
	ZEROBRIDGE_BIN_DIR=$(CURDIR)/target/$(TARGET)/release cargo bench --quiet -p zerobridge-cni-sriov --bench start
	cargo bench --quiet -p zerobridge-ledger --bench process
	ZEROBRIDGE_BIN_DIR=$(CURDIR)/target/$(TARGET)/release \
		ZEROBRIDGE_REFERENCE_DIR=$$(cargo run --quiet -p zerobridge-lab -- reference) \
		cargo bench --quiet -p zerobridge-ipam --bench leases
	cargo bench --quiet -p zerobridge-kernel --features testing --bench scan
	cargo bench --quiet -p zerobridge-device-plugin --bench allocate
	ZEROBRIDGE_BIN_DIR=$(CURDIR)/target/$(TARGET)/release cargo bench --quiet -p zerobridge-device-plugin --bench daemon
	@cargo run --quiet -p zerobridge-lab -- figures

.PHONY: bench-lab
bench-lab: build lab ## ADD and DEL in the lab, 100 each, against the CNI reference plugins and the least possible
	CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="$(STATIC) $(REPRODUCIBLE)" \
		cargo build --release --target $(TARGET) -p zerobridge-kernel --example floor
	@cargo run --quiet -p zerobridge-lab -- attachments --floor $(CURDIR)/target/$(TARGET)/release/examples/floor

.PHONY: services
services: lab ## Services for pods whose only interface is a VF: both prototypes checked and measured in the lab; installs clang
	CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="$(STATIC)" \
		cargo build --release --target $(TARGET) -p zerobridge-services
	@cargo run --quiet -p zerobridge-lab -- services --program $(CURDIR)/target/$(TARGET)/release/services

.PHONY: build
build: ## the four programs, static, in target/$(TARGET)/release
	CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="$(STATIC) $(REPRODUCIBLE)" \
		cargo build --release --target $(TARGET) $(PROGRAMS)

.PHONY: image
image: build ## the container image, target/image/zerobridge.tar, and what is linked into it, zerobridge.spdx.json
	@cargo run --quiet -p zerobridge-image -- --programs $(BUILT) --out target/image --target $(TARGET) \
		--revision "$$(git describe --always --dirty --abbrev=40 --exclude='*')" \
		--created "$$(TZ=UTC0 git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ)"

.PHONY: lab
lab: ## prepare everything costly once: kernel, initramfs, kubelet, containerd, images
	@cargo run --quiet -p zerobridge-lab -- prepare

# Built once a version; it asks no advisory database, which CI machines may not reach.
$(DENY):
	cargo install --quiet --locked --version $(DENY_VERSION) --root $(dir $(patsubst %/,%,$(dir $@))) cargo-deny
