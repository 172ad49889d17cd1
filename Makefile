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
# What the tests run beside ours, from Debian or Ubuntu.
PACKAGES := iproute2 containerd runc containernetworking-plugins busybox-static user-mode-linux strace valgrind mandoc g++ \
	podman iperf3 ethtool nftables libseccomp-dev pkg-config dnsmasq-base openssl

# As `cargo fuzz` has them: coverage that libFuzzer reads, overflow checks, the address sanitizer.
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Ccodegen-units=1 -Zsanitizer=address --cfg fuzzing
FUZZ_TARGETS := $(or $(TARGETS),$(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs))))
FUZZ_DIR := $(TARGET_DIR)/fuzz

REFERENCE_BIN := $(if $(REFERENCE),UNDERLAY_REFERENCE_BIN=$(abspath $(REFERENCE)))

.PHONY: help build peers install deb image release reproducible demo test compliance faults floor bench bench-ipam bench-lan fuzz advisories lint packages clean

help: ## what there is to do
	@sed -n 's/^\([a-z-]*\):.*## /  make \1  \t/p' $(MAKEFILE_LIST)

# An explicit --target spares build scripts and proc-macros the static C library.
build: ## bin/: the static program under all its names
	CARGO_ENCODED_RUSTFLAGS="$$($(RUST_FLAGS))" \
		cargo build --locked --release --target $(HOST) -p underlay
	@$(PROGRAM) install --to bin
	@ls -l bin

# Only the copying needs root, and cargo may not be root's.
install: build ## the program under its plugin names into BINDIR (default /opt/cni/bin)
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

peers: packages ## what the tests run of others, from the Go modules in tests/peers; MODULES="reference etcd" for some
	@tests/peers/build.sh $(TARGET_DIR)/peers $(MODULES)

test: packages build floor peers ## every lane: unit, native, guest, runtime
	@echo '== lane: unit =='
	cargo test --locked --workspace --exclude e2e --exclude kubernetes --exclude runtimes
	cargo test --locked -p e2e -p kubernetes --lib --bins
	@echo '== lanes: native, guest, runtime =='
	cargo run --locked --quiet -p e2e --bin lanes

compliance: packages build peers ## the same calls on the reference (or REFERENCE=directory) and on ours, and what differs
	$(REFERENCE_BIN) cargo run --locked --quiet -p e2e --bin lanes -- e2e/compliance:
	@$(REFERENCE_BIN) cargo test --locked --quiet -p e2e --test compliance -- --exact --nocapture \
		every_row_of_the_page_is_shown_and_every_difference_has_a_row

faults: packages build ## kills and failures at every system call: the share of the day, or with FULL=1 all of them
	@cargo build --locked --quiet -p e2e --bin lanes --bin faults
	cargo run --locked --quiet -p e2e --bin faults -- $(if $(FULL),--full)

# What the benchmarks compare with: static, as the program itself.
floor:
	CARGO_ENCODED_RUSTFLAGS="$$($(RUST_FLAGS))" \
		cargo build --locked --release --target $(HOST) -p floor

bench: packages build floor peers ## ADD and DEL beside the reference's: one, bursts, growth. QUICK=1 OUT=file.json REFERENCE=dir
	$(REFERENCE_BIN) cargo run --locked --quiet -p e2e --bin bench -- $(if $(QUICK),--quick) $(if $(OUT),--out $(OUT))

fuzz: packages ## every fuzz target for SECONDS (default 10), or the TARGETS named; what it learns stays in target/
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

bench-ipam: packages build peers ## host-local and the reference's, from 10 leases to 60,000
	cargo run --locked --quiet --release -p e2e --bin bench-ipam

bench-lan: packages build ## a sub-interface beside bridges, routes and tunnels; QUICK=1 for a look, OUT=directory
	cargo build --locked --quiet -p e2e --bin lanes --bin bench-lan
	$(if $(QUICK),QUICK=$(QUICK)) $(if $(OUT),OUT=$(abspath $(OUT))) $(TARGET_DIR)/debug/bench-lan

lint: ## formatting and clippy, warnings as errors
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

packages: ## installs what the tests need, with apt-get
	@missing=; for package in $(PACKAGES); do \
		dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q ' installed$$' || missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ]; then \
		echo "installing:$$missing"; \
		$(SUDO) apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends $$missing; \
	fi

clean: ## removes what was built
	rm -rf bin
	cargo clean
