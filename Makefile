# Two commands do everything: `make demo` and `make test`. Packaging keeps this file; see README.md.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin

.PHONY: venv native
venv: $(BIN)/maturin
$(BIN)/maturin:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q maturin cffi
native: venv
	$(BIN)/maturin develop -q --release --locked --skip-install || $(BIN)/pip install -q --no-build-isolation --no-deps -e .
