# Everything runs in .venv, which is made when it is missing or when pyproject.toml has changed.
# Needed on the machine: Python 3.11 or later with venv, make, a C++ compiler and perl.

# The first of these that is new enough, or what is given as PYTHON=...
PYTHON ?= $(shell for name in python3 python3.11 python3.12 python3.13 python3.14; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo "$$name" && break; done)

# Where the comparison goes, and more options for the commands that are run.
OUT ?= build/compare
COMPARE_ARGS ?=
TEST_ARGS ?= -n 2
BENCH_ARGS ?=

# Relative paths only, so that a folder with spaces in its name is no trouble.
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help compare test lint bench docs clean distclean

help:
	@echo "make compare    measure all formats on the embedded network; report in $(OUT)"
	@echo "make test       run the test suite"
	@echo "make lint       check style and types"
	@echo "make bench      run the benchmarks, each against its baseline; an hour on two cores"
	@echo "make docs       tables and pictures of docs/, from the golden models"
	@echo "make clean      remove what was built, but for .venv"
	@echo "make distclean  remove .venv too"

compare: .venv/core
	$(BIN)/narrowgauge compare -o "$(OUT)" $(COMPARE_ARGS)

test: .venv/dev
	$(BIN)/python -m pytest $(TEST_ARGS)

lint: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: .venv/dev
	@status=0; for file in bench/bench_*.py; do \
		echo "== $$file"; $(BIN)/python "$$file" $(BENCH_ARGS) || status=1; done; exit $$status

docs: .venv/core
	$(BIN)/python docs/generate.py

.venv/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later must be installed, or given as PYTHON=..." >&2; exit 1; }
	"$(PYTHON)" -m venv .venv
	@touch $@

.venv/core: pyproject.toml | .venv/python
	$(PIP) --editable .
	@touch $@

.venv/dev: pyproject.toml | .venv/core
	$(PIP) --editable ".[dev]"
	@touch $@

clean:
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name .venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean
	rm -rf .venv
