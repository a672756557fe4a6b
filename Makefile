# zind: the two commands of the README are `make demo` and `make test`. Everything that is built goes below build/ and
# target/; everything that is needed is installed by `make setup`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PREFIX ?= /usr/local
# Debian's own: an ordinary user can run it too.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
VENV := build/venv
BIN := $(VENV)/bin
ROOT := $(if $(filter 0,$(shell id -u)),,sudo)
CARGO_FLAGS ?= --locked

# What the tests run: the id map helpers, a tiny and a real root, a debugger for memory, and the tools they look with.
PACKAGES := gcc g++ make pkg-config python3 python3-venv uidmap busybox-static mmdebstrap valgrind procps util-linux vim-tiny less \
	iproute2 strace attr libcap2-bin fuse-overlayfs squashfs-tools erofs-utils \
	docker-registry skopeo umoci buildah apache2-utils openssl libseccomp2

.PHONY: help setup packages venv cli wheel develop build demo room test test-rust test-c test-python test-vm test-user fuzz sanitize lint bench bench-vm install clean

help:
	@echo 'make demo     set up what is needed, then show real programs in real containers'
	@echo 'make test     set up what is needed, then pass every test'
	@echo 'make test-vm  only those in virtual machines with control groups of version 2 alone; SUITES="root systemd user"'
	@echo 'make fuzz     hostile bytes for all readers of foreign ones; FUZZ_SECONDS=3600 for an hour each'
	@echo 'make sanitize  the C programs and many threads with sanitizers and valgrind'
	@echo 'make bench    measure beside bubblewrap, crun, runc and a bare floor in C'
	@echo 'make bench-vm  what control groups cost, in a virtual machine with version 2 alone'
	@echo 'make install  install the C library, header and pkg-config file, the command, its man pages and completions; PREFIX=/usr/local, DESTDIR='

setup: packages venv

packages:
	@missing=(); for package in $(PACKAGES); do \
		dpkg-query -W -f '$${Status}' "$$package" 2>/dev/null | grep -q '^install ok' || missing+=("$$package"); done; \
	if [ $${#missing[@]} -gt 0 ]; then echo "installing $${missing[*]}"; \
		$(ROOT) apt-get update -qq && DEBIAN_FRONTEND=noninteractive $(ROOT) apt-get install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null; fi

$(BIN)/maturin: pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install -q 'maturin>=1.9,<2' pytest hypothesis mypy typing_extensions
	touch $@

venv: $(BIN)/maturin

# The command, built for the wheel and for `make install`.
cli:
	cargo build $(CARGO_FLAGS) --release -p zind-cli

# The wheel with module and command, and zind in the virtual environment from that very wheel.
wheel: venv cli
	install -D -s -m 755 $${CARGO_TARGET_DIR:-target}/release/zind zind-py/data/scripts/zind
	$(BIN)/maturin build -q --release --locked --compression-level 9 --interpreter $(BIN)/python --out build/wheels

develop: wheel
	$(BIN)/pip install -q --force-reinstall --no-deps build/wheels/*.whl

build:
	cargo build $(CARGO_FLAGS) --release

demo: setup develop
	$(BIN)/python examples/python/demo.py

# The most that all of it takes at a time, in GiB: what is built, root file systems, and disks of virtual machines.
ROOM := 10
room:
	@free=$$(df --output=avail -BG . | tail -1 | tr -dc 0-9); [ "$$free" -ge $(ROOM) ] || \
		{ echo "make test needs $(ROOM) GiB of disk, and there are $$free: make clean, or df -h" >&2; exit 1; }

test: room setup develop lint test-rust fuzz test-c test-python test-vm
	@echo 'all tests passed'

# The launcher is compiled by a build script, where cargo's own tools do not see it. (A reference to a `static mut` is what
# `deref_addrof` would have.)
LAUNCHER := --edition 2024 zind-init/launcher/main.rs
lint:
	cargo fmt --all --check
	rustfmt --check $(LAUNCHER)
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings
	mkdir -p build && clippy-driver $(LAUNCHER) --crate-name launcher -C panic=abort --emit=metadata -o build/launcher.rmeta \
		-D warnings -D rust_2018_idioms -D clippy::undocumented_unsafe_blocks -A clippy::deref_addrof
	RUSTDOCFLAGS='-D warnings' cargo doc $(CARGO_FLAGS) --no-deps --workspace
	$(BIN)/python .ci/dependencies.py
	$(BIN)/python .ci/unsafe_code.py
	cd zind-py/python && ../../$(BIN)/python -m mypy --config-file ../../pyproject.toml --strict zind

# The tests of the kernel's promises are run as root and as an ordinary user.
test-rust:
	cargo test $(CARGO_FLAGS) -p zind-init -p zind-core -p zind-cli
	cargo run -q $(CARGO_FLAGS) -p zind-core --example quickstart
	cargo run -q $(CARGO_FLAGS) -p zind-core --example lowlevel
	cargo run -q $(CARGO_FLAGS) -p zind-core --example branching
	cargo run -q $(CARGO_FLAGS) -p zind-core --example images
	cargo run -q $(CARGO_FLAGS) -p zind-core --example living

# Hostile bytes for every reader of foreign ones, begun from the corpora in zind-core/fuzz/corpus: FUZZ_SECONDS for each of fourteen
# groups of readers, as many at once as there are processors.
FUZZ_SECONDS ?= 60
fuzz:
	FUZZ_SECONDS=$(FUZZ_SECONDS) zind-core/fuzz/run

# The C programs under AddressSanitizer (with leaks), UndefinedBehaviorSanitizer and valgrind, which test-c has, too; and many threads
# with ThreadSanitizer and AddressSanitizer in all of zind's own Rust, which is built for each.
sanitize:
	cargo test $(CARGO_FLAGS) -p zind-ffi --test c_face -- nothing_is
	zind-core/sanitize/run thread
	zind-core/sanitize/run address

test-c:
	cargo test $(CARGO_FLAGS) -p zind-ffi

test-python: venv
	$(BIN)/python -m pytest

# Control groups of version 2 alone, with and without systemd, as root and as an ordinary user: one boot for each suite. Where
# no virtual machine can be had it says why; with CI set that is a failure.
SUITES ?=
test-vm: develop
	$(BIN)/python zind-py/tests/vm/suites.py $(SUITES)

# The bars of control groups on version 2 alone. The machine is emulated, and its clock counts instructions: the same figures however busy
# this one is. Read the ratios, not the times.
bench-vm: develop
	@site=$$($(BIN)/python -c 'import os, zind; print(os.path.dirname(os.path.dirname(zind.__file__)))'); \
		zind-py/tests/vm/run-in-vm --count --mem 2048 --timeout 1200 '$(CURDIR)' -- \
		env ROUNDS=$${ROUNDS:-20} MANY=$${MANY:-50} PYTHONPATH="$$site" $(PYTHON) '$(CURDIR)/benches/cgroups.py'

bench: setup develop
	@missing=(); for package in bubblewrap crun runc; do \
		dpkg-query -W -f '$${Status}' "$$package" 2>/dev/null | grep -q '^install ok' || missing+=("$$package"); done; \
	if [ $${#missing[@]} -gt 0 ]; then $(ROOT) apt-get update -qq && DEBIAN_FRONTEND=noninteractive $(ROOT) apt-get install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null; fi
	$(BIN)/python benches/bench.py --filesystem --cgroups --execs --many --policy --wheel build/wheels/*.whl $(BENCH_FLAGS)

install:
	cargo build $(CARGO_FLAGS) --release -p zind-ffi -p zind-cli
	zind-ffi/install.sh '$(PREFIX)' '$(DESTDIR)'
	zind-cli/install.sh '$(PREFIX)' '$(DESTDIR)'

clean:
	rm -rf build target
