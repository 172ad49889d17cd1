# Underlay. `make help` lists what there is to do.

HOST := $(shell rustc -vV | sed -n 's/^host: //p')
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
PROGRAM := $(TARGET_DIR)/$(HOST)/release/underlay
BINDIR ?= /opt/cni/bin
# What packages say is their date: the commit's.
DATED := SOURCE_DATE_EPOCH=$(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct))
# Static, and without the place where it was built in its bytes. Separated as cargo's encoded form wants it, so that a
# directory's name may have spaces.
RUST_FLAGS := printf '%s\037%s' -Ctarget-feature=+crt-static \
	"--remap-path-prefix=$${CARGO_HOME:-$$HOME/.cargo}/registry/src=crates"
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

# As `cargo fuzz` has them: coverage that libFuzzer reads, overflow checks, the address sanitizer.
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Ccodegen-units=1 -Zsanitizer=address --cfg fuzzing
FUZZ_TARGETS := $(or $(TARGETS),$(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs))))
FUZZ_DIR := $(TARGET_DIR)/fuzz

REFERENCE_BIN := $(if $(REFERENCE),UNDERLAY_REFERENCE_BIN=$(abspath $(REFERENCE)))

LANES := test-unit test-native test-runtime test-compliance test-guest test-kubernetes

.PHONY: help build peers install deb image release reproducible demo test $(LANES) compliance faults floor bench bench-ipam bench-lan jepsen fuzz advisories lint packages clean

help: ## what there is to do
	@sed -n 's/^\([a-z-]*\):.*## /  make \1  \t/p' $(MAKEFILE_LIST)

# An explicit --target spares build scripts and proc-macros the static C library. Each program is built by a call of its
# own: together, they would share the features of their libraries, and the plugins' program would grow.
build: ## bin/: the static programs: the plugins under all their names, and lan-pool
	CARGO_ENCODED_RUSTFLAGS="$$($(RUST_FLAGS))" \
		cargo build --locked --release --target $(HOST) -p underlay
	CARGO_ENCODED_RUSTFLAGS="$$($(RUST_FLAGS))" \
		cargo build --locked --release --target $(HOST) -p lan-pool
	@$(PROGRAM) install --to bin
	@ls -l bin

# Only the copying needs root, and cargo may not be root's.
install: build ## the program under its plugin names, and lan-pool, into BINDIR (default /opt/cni/bin)
	@$(shell test -w $(BINDIR) || echo $(SUDO)) bin/underlay install --to $(BINDIR)

deb: build ## a Debian package, in dist/
	@$(DATED) packaging/deb.sh bin/underlay dist

image: build ## a container image that installs itself on a node, in dist/
	@$(DATED) packaging/image.sh bin/underlay dist

release: ## everything that is published, in dist/release/, tested and built twice; uploads nothing
	@packaging/release.sh dist/release

reproducible: ## builds this commit in two directories: the bytes are the same
	@packaging/reproducible.sh

demo: build ## two containers on a LAN of namespaces; needs no root
	@cargo run --locked --quiet -p e2e --example demo

peers: ## what the tests run of others, from the Go modules in tests/peers; MODULES="reference etcd" for some
	@tests/peers/build.sh $(TARGET_DIR)/peers $(MODULES)

test: ## every lane, one verdict, and where the time went; as root
	@tests/run.sh all

test-unit: ## the crates by themselves; in every lane TESTS="word..." is for tests with one of them in their full name
test-native: ## the built program on this kernel; TESTS=e2e/macvlan: for one suite
test-runtime: ## containerd, libcni and podman
test-compliance: ## the same calls by the reference and by ours
test-guest: ## the suites again in a guest, whose kernel has everything
test-kubernetes: ## a cluster of two nodes

$(LANES):
	@tests/run.sh $(@:test-%=%) $(TESTS)

packages-%:
	@tests/packages.sh $*

peers-%:
	@tests/peers/build.sh $(TARGET_DIR)/peers $*

compliance: packages-compliance packages-guest build peers-reference ## the lane, the guest's part, and what differs; REFERENCE=directory for another
	@cargo build --locked --quiet --workspace --bin lanes
	$(REFERENCE_BIN) $(TARGET_DIR)/debug/lanes e2e/compliance:
	@$(REFERENCE_BIN) cargo test --locked --quiet --workspace --test compliance -- --exact --nocapture \
		every_row_of_the_page_is_shown_and_every_difference_has_a_row

faults: packages-native packages-guest build ## kills and failures at every system call: the share of the day, or with FULL=1 all of them
	@cargo build --locked --quiet -p e2e --bin lanes --bin faults
	cargo run --locked --quiet -p e2e --bin faults -- $(if $(FULL),--full)

# What the benchmarks compare with: static, as the program itself.
floor:
	CARGO_ENCODED_RUSTFLAGS="$$($(RUST_FLAGS))" \
		cargo build --locked --release --target $(HOST) -p floor

bench: packages-bench build floor peers-reference ## ADD and DEL beside the reference's: one, bursts, growth. QUICK=1 OUT=file.json REFERENCE=dir
	$(REFERENCE_BIN) cargo run --locked --quiet -p e2e --bin bench -- $(if $(QUICK),--quick) $(if $(OUT),--out $(OUT))

jepsen: packages-kubernetes build peers-etcd peers-kubernetes ## random faults on four nodes that share a pool, for SECONDS (default 1200); JEPSEN_SEED=N sets the random numbers
	JEPSEN_SECONDS=$(or $(SECONDS),1200) cargo test --locked --quiet -p kubernetes --test pool_jepsen -- --nocapture random_faults

fuzz: packages-fuzz ## every fuzz target for SECONDS (default 10), or the TARGETS named; what it learns stays in target/
	RUSTC_BOOTSTRAP=1 RUSTFLAGS="$(FUZZ_FLAGS)" \
		cargo build --locked --release --target $(HOST) --manifest-path fuzz/Cargo.toml --target-dir $(FUZZ_DIR)
	@for target in $(FUZZ_TARGETS); do \
		echo "== fuzz: $$target =="; \
		mkdir -p $(FUZZ_DIR)/corpus/$$target $(FUZZ_DIR)/artifacts/$$target; \
		TMPDIR=$$(test -w /dev/shm && echo /dev/shm || echo /tmp) \
			$(FUZZ_DIR)/$(HOST)/release/$$target -max_total_time=$(or $(SECONDS),10) -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=256 \
			-print_final_stats=1 -close_fd_mask=2 -artifact_prefix=$(FUZZ_DIR)/artifacts/$$target/ \
			$(FUZZ_DIR)/corpus/$$target fuzz/seeds/$$target >$(FUZZ_DIR)/$$target.log 2>&1; \
		status=$$?; \
		grep -E '#.*(INITED|DONE)|stat::|ERROR|SUMMARY|Test unit' $(FUZZ_DIR)/$$target.log; \
		for found in $(FUZZ_DIR)/artifacts/$$target/*; do \
			if test -e "$$found"; then \
				$(FUZZ_DIR)/$(HOST)/release/$$target "$$found"; \
				echo "fuzz: $$found: mend it, add it to fuzz/seeds/$$target, and remove it"; exit 1; \
			fi; \
		done; \
		test $$status = 0 || { tail -n 20 $(FUZZ_DIR)/$$target.log; exit 1; }; \
	done

advisories: ## known weaknesses of dependencies, by cargo-deny, which must be installed; needs the network
	cargo deny --locked --workspace check advisories

bench-ipam: packages-bench build peers-reference ## host-local and the reference's, from 10 leases to 60,000
	cargo run --locked --quiet --release -p e2e --bin bench-ipam

bench-lan: packages-bench build ## a sub-interface beside bridges, routes and tunnels; QUICK=1 for a look, OUT=directory
	cargo build --locked --quiet -p e2e --bin lanes --bin bench-lan
	$(if $(QUICK),QUICK=$(QUICK)) $(if $(OUT),OUT=$(abspath $(OUT))) $(TARGET_DIR)/debug/bench-lan

lint: ## formatting and clippy, warnings as errors
	cargo fmt --all --check
	@# The fuzz targets have a lock file of their own, which every new crate and dependency changes.
	@cargo metadata --locked --manifest-path fuzz/Cargo.toml --format-version 1 >/dev/null
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

packages: ## installs what all tests, benchmarks and fuzzing need, with apt-get
	@tests/packages.sh unit native runtime compliance guest kubernetes bench fuzz

clean: ## removes what was built
	rm -rf bin
	cargo clean
