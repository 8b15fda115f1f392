# Everything a contributor runs. Each target makes what it needs; `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
BENCH := .venv-bench
BENCH_STAMP := $(BENCH)/.stamp

# Tests and figures start hundreds of processes, each of which would compile every module anew.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test soak check bench core peers clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## show what the library does, on a real file
	@$(BIN)/python -m sojourn.demo

test: $(STAMP) ## run the tests (all but the long ones); below 95 % branch coverage fails
	@$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n auto --maxprocesses=2 --dist loadgroup -m "not soak" $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

soak: $(STAMP) ## run the long tests, with long counts, showing progress
	SOJOURN_SOAK=1 $(BIN)/python -m pytest -m soak -v --capture=no $(ARGS)

check: $(STAMP) ## lint, format, types, import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: core peers ## measure the core, then Sojourn beside its peers, on this machine

core: $(STAMP) ## measure the core beside the least work that does the same
	@$(BIN)/python -m benchmarks.core $(ARGS)

peers: $(BENCH_STAMP) ## measure Sojourn beside its peers
	@$(BENCH)/bin/python -m benchmarks.peers $(ARGS)

clean: ## remove the virtual environment and everything generated
	rm -rf $(VENV) $(BENCH) build dist demo-run example-run htmlcov .coverage .coverage.* \
		.hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

# Coverage is started before pytest (not by a plugin of it): the package's own pytest plugin imports
# the package first, and those lines would count as never run.
$(STAMP): pyproject.toml
	@echo "setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

# The peers bring a hundred packages, so they have an environment of their own; pip says how far it is.
$(BENCH_STAMP): benchmarks/requirements.txt pyproject.toml
	@echo "setting up $(BENCH): downloading the peers takes some minutes"
	@$(PYTHON) -m venv $(BENCH)
	@$(BENCH)/bin/python -m pip install --disable-pip-version-check --requirement benchmarks/requirements.txt
	@touch $@
