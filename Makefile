# One word a chore; `make help` lists them. Everything is made in .venv and target/, and made again only when what it
# is made from has changed.

PYTHON  ?= python3
BIND    ?= 127.0.0.1:8000
EXAMPLE ?= flask_app
TARGET  ?= head body exchange split proxy websocket handshake
SECONDS ?= 60

VENV  := .venv
BIN   := $(VENV)/bin
PIP   := $(BIN)/python -m pip --quiet --disable-pip-version-check
BUILT := $(VENV)/.built
DEV   := $(VENV)/.dev

# The interpreter that the native module is built for.
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python

NATIVE := $(shell find native -path native/fuzz -prune -o \( -name '*.rs' -o -name Cargo.toml \) -print)

.DELETE_ON_ERROR:
.PHONY: serve test check format bench fuzz soak docs clean help


serve: $(BUILT) $(VENV)/.$(EXAMPLE) ## build, and serve examples/flask_app on 127.0.0.1:8000 (or EXAMPLE=django_app)
	@echo "Serving examples/$(EXAMPLE): open http://$(BIND)/ in a browser. Ctrl-C stops it."
	@cd examples/$(EXAMPLE) && exec $(CURDIR)/$(BIN)/bicorn --bind $(BIND)

test: $(BUILT) $(DEV) ## build, and run the whole suite: Rust, then Python
	cargo test --quiet --package bicorn-wire --package bicorn-reactor
	@sh native/bind/test.sh $(BIN)/python
	$(BIN)/pytest --numprocesses auto --dist worksteal

check: $(BUILT) $(DEV) ## format, lint, types, stubs, layers; nothing is changed
	$(BIN)/ruff format --check --quiet
	$(BIN)/ruff check --quiet
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest bicorn._core
	$(BIN)/lint-imports --no-cache --no-logo
	cargo fmt --check
	cargo clippy --quiet --workspace --all-targets -- --deny warnings
	cargo test --quiet --package bicorn-wire
	$(BIN)/pytest --quiet tests/unit/test_tidy.py

format: $(DEV) ## put Python and Rust sources in shape
	$(BIN)/ruff format --quiet
	$(BIN)/ruff check --quiet --fix
	cargo fmt

bench: $(BUILT) $(DEV) ## measure Bicorn beside its peers; takes half an hour and two idle cores
	$(BIN)/python -m bench

fuzz: ## fuzz the parser; TARGET=split SECONDS=600 chooses
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	cd native/fuzz && ./seed.sh && for target in $(TARGET); do \
	    RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir . -s none $$target -- -max_total_time=$(SECONDS) -dict=http.dict || exit 1; \
	done

soak: $(DEV) ## 100,000 spoilt requests, and minutes of killed workers; takes six
	$(BIN)/pytest -m soak tests/soak

docs: $(VENV)/.docs ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The documentation is in site/index.html."

clean: ## remove everything that make has made
	rm -rf $(VENV) .venv-bench target native/fuzz/target site dist .*_cache src/bicorn/_core.*.so

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)


$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	    || { echo "Bicorn needs CPython 3.10 or newer; choose one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	@command -v cargo >/dev/null \
	    || { echo "Bicorn is built with Rust, and there is no cargo here: see https://rustup.rs" >&2; exit 1; }
	@echo "Making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) \
	    || { echo "Debian and Ubuntu have venv in a package of its own: apt install python3-venv" >&2; exit 1; }
	@$(PIP) install --upgrade 'pip>=25.1' 'maturin>=1.9.4,<2'
	@touch $@

$(BUILT): $(VENV)/.made $(NATIVE) Cargo.toml Cargo.lock pyproject.toml
	@echo "Building Bicorn; the first time takes a minute or two ..."
	@PATH="$(CURDIR)/$(BIN):$$PATH" MATURIN_PEP517_ARGS=--locked $(PIP) install --no-build-isolation --editable .
	@touch $@

$(VENV)/.%_app: examples/%_app/requirements.txt | $(BUILT)
	@$(PIP) install --requirement $<
	@touch $@

$(DEV): pyproject.toml | $(VENV)/.made
	@$(PIP) install --group dev
	@touch $@

$(VENV)/.docs: $(VENV)/.made pyproject.toml
	@$(PIP) install --group docs
	@touch $@
