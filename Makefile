# What a user runs: `make demo` and `make test`. Both make the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo test lint slow chaos clean

help:
	@echo "make demo     the miniature world, from nothing to a verdict and runs/quickstart/report.html"
	@echo "make test     the default test suite with ruff, mypy and import-linter"
	@echo "make slow     the tests that take minutes"
	@echo "make chaos    kill, tear and fill things at random points; everything must survive (SEED=N repeats a run, MINUTES=M stops after a while)"
	@echo "make install  the environment in $(VENV) alone"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	DS_BUILD_OPS=0 $(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/tutelage run experiments/quickstart.yaml

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest --numprocesses 2 --dist loadgroup --no-loadscope-reorder

slow: install
	$(BIN)/pytest -m slow

chaos: install
	$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES))

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
