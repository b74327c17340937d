# Two commands do everything, set-up included: `make demo` shows the product at work, `make test` runs every test.
# They need Python 3.11+, a Rust toolchain and the package registries. `make help` lists the rest.
SHELL := /bin/sh
VENV  ?= .venv
BIN    = $(VENV)/bin
PYTEST_ARGS ?=
export VENV

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-rust test-python native man lint bench drill-suite wheel requirements install clean
.NOTPARALLEL:

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 24

setup: ## virtual environment, pinned packages, compiled core
	@scripts/setup venv
	@scripts/setup native

demo: setup ## guard a sample tree, attack it, show what happened, bring it back
	@scripts/demo

test: setup ## every test, Rust and Python
	@scripts/setup tools
	@scripts/test $(PYTEST_ARGS)

native: ## the compiled core alone
	@scripts/setup venv
	@scripts/setup native

man: ## the manual pages, from man/*.scd (needs scdoc)
	@scripts/setup man

lint: setup ## ruff, mypy, rustfmt, clippy; advisories where they can be had
	@scripts/lint

bench: setup ## every measurement, written to BENCHMARKS.md
	@scripts/setup tools
	@nice -n 5 $(BIN)/python -m bench

drill-suite: setup ## as root: real attacks at full speed against the real daemon, on a file system of its own
	@$(BIN)/python -m bench.suite

wheel: ## one wheel in dist/, byte-identical for one commit
	@scripts/setup venv
	@scripts/wheel dist

requirements: ## pin requirements/*.txt again from pyproject.toml (needs uv)
	@scripts/lock

install: wheel ## as root: into /opt/shieldd, with units, account and configuration
	@scripts/install dist/shieldd-*.whl

clean: ## what the build made, but not the virtual environment
	rm -rf .build dist build native/target shieldd/_native .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
