# Every way in: `make help` lists them. Continuous integration runs `make test`, as anybody can.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# Where rustup puts cargo, for shells that do not know it.
export PATH := $(PATH):$(HOME)/.cargo/bin

.NOTPARALLEL:
.PHONY: help demo test bench lint tidy fmt build deps

help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 14

demo: deps ## Play the main job for real, then remove everything (KEEP=1 leaves it up)
	@scripts/demo.sh

# Lints are looked for in the pass that compiles: a second would take minutes (scripts/rustc.sh). Twice as
# many tests at once as there are processors: half of the time they wait for somebody's clock.
test: export RUSTC_WORKSPACE_WRAPPER := $(CURDIR)/scripts/rustc.sh
test: deps tidy ## Install what is missing, then run every check and every test
	cargo test --locked --no-run --all-targets
	TMPDIR=$$(scripts/test-dir.sh) RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$((2 * $$(nproc)))} \
		cargo test --locked

bench: deps ## Measure each rate beside its ceiling; writes target/bench/summary.json
	cargo bench --locked --bench rates

# Warnings are errors for our own code only: flags in RUSTFLAGS would rebuild every dependency.
lint: tidy ## Check format, lints, shell scripts and licences
	cargo clippy --locked --all-targets -- -D warnings

tidy:
	cargo fmt --check
	for script in scripts/*.sh .ci/run; do bash -n "$$script"; done
	if command -v cargo-deny >/dev/null; then cargo deny check bans licenses sources; \
	else echo "cargo-deny is not installed: bans, licences and sources are not checked"; fi

fmt: ## Format the code
	cargo fmt

build: ## Build the program for use: target/release/strongroom
	cargo build --locked --release

deps: ## Install the system packages that are missing, or name them
	@scripts/deps.sh
