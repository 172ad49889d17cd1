# Underlay. `make help` lists what there is to do.

HOST := $(shell rustc -vV | sed -n 's/^host: //p')
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
PROGRAM := $(TARGET_DIR)/$(HOST)/release/underlay
BINDIR ?= /opt/cni/bin
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
# What the tests run beside ours, from Debian or Ubuntu.
PACKAGES := iproute2 containerd runc containernetworking-plugins busybox-static

.PHONY: help build install demo test lint packages clean

help: ## what there is to do
	@sed -n 's/^\([a-z-]*\):.*## /  make \1  \t/p' $(MAKEFILE_LIST)

# An explicit --target spares build scripts and proc-macros the static C library.
build: ## bin/: the static program under all its names
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target $(HOST) -p underlay
	@$(call place,bin)
	@ls -l bin

install: build ## the program under its plugin names into BINDIR (default /opt/cni/bin)
	@$(call place,$(BINDIR))
	@ls -l $(addprefix $(BINDIR)/,$(shell bin/underlay --plugins))

# Written beside, then renamed: a runtime executes the old program or the new one, never half a file.
define place
set -e; \
mkdir -p '$(1)'; \
new='$(1)/.underlay.new'; \
trap 'rm -f "$$new" "$$new".*' EXIT; \
cp $(PROGRAM) "$$new"; \
chmod 755 "$$new"; \
for name in underlay $$($(PROGRAM) --plugins); do \
	ln -f "$$new" "$$new.$$name"; \
	mv -fT "$$new.$$name" '$(1)'/"$$name"; \
done
endef

demo: build ## two containers on a LAN of namespaces; needs no root
	@cargo run --locked --quiet -p e2e --example demo

test: packages build ## every lane: unit, netns, runtime
	@echo '== lane: unit =='
	cargo test --locked --workspace --exclude e2e
	@echo '== lane: netns and runtime =='
	cargo test --locked -p e2e

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
