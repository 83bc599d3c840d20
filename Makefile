# What a user runs: `make demo` and `make test`. Both make the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Tests that need no Ray and no trained model.
QUICK := $(wildcard tests/test_selection_verification*.py tests/test_selection_rules.py tests/test_selection_costs.py \
	tests/test_jobs_files_*.py tests/test_jobs_experiment_*.py tests/test_jobs_standalone_*.py tests/test_docs_data.py)

.PHONY: help install demo check quick test long lint slow chaos clean

help:
	@echo "make demo     the miniature world, from nothing to a verdict and runs/quickstart/report.html"
	@echo "make check    about a minute: ruff, mypy, import-linter, and quick tests that start no Ray"
	@echo "make test     the default test suite with ruff, mypy and import-linter: 8 to 15 minutes on two cores"
	@echo "make long     whole runs on clusters, what is killed and goes on: about ten minutes more"
	@echo "make slow     the tests that take minutes each"
	@echo "make chaos    kill, tear and fill things at random points; everything must survive (SEED=N repeats a run, MINUTES=M stops after a while)"
	@echo "make install  the environment in $(VENV) alone"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	DS_BUILD_OPS=0 $(BIN)/pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	touch $@

demo: install
	$(BIN)/tutelage run experiments/quickstart.yaml

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint quick

quick: install
	$(BIN)/pytest --numprocesses 2 --dist loadgroup --no-loadscope-reorder -m 'not slow and not long and not ray' $(QUICK)

test: lint
	$(BIN)/pytest --numprocesses 2 --dist loadgroup --no-loadscope-reorder -m 'not slow and not long'

long: install
	$(BIN)/pytest --numprocesses 2 --dist loadgroup --no-loadscope-reorder -m 'long and not slow' \
		$(if $(SECONDS_LEFT),--begin-none-after $(SECONDS_LEFT))

slow: install
	$(BIN)/pytest -m slow

chaos: install
	$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES))

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
