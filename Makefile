# The project's verbs. Every one sets itself up first; `make` alone says what there is.
# ARGS goes to the tool behind the verb: make demo ARGS="--seconds 12 --json", make test ARGS="-k writer".

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
# Beside PYTHON, those that pyproject.toml claims.
PYTHONS ?= python3.12 python3.13
# What `make coverage` runs: the tests that need neither a server nor a minute.
COVERED := tests/core tests/runtime tests/ops tests/stores/test_memory.py tests/stores/test_sqlite.py tests/http \
	tests/cli/test_config.py tests/cli/test_logs.py \
	--ignore=tests/ops/test_repair_tutorial.py --ignore=tests/http/test_hostile.py \
	--ignore=tests/http/test_effects_http.py -k "not crash and not follows"
# The tests start hundreds of processes: what Python has compiled once is kept, whatever the shell says.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-wheel test-pythons coverage check lint types tidy bench cost seeds soak docs picture format

help: ## This list
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: $(STAMP) ## Make .venv with everything in it (again only when pyproject.toml or constraints.txt change)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "holdfast needs Python 3.11 or later: make PYTHON=python3.x")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[all,dev]"
	@touch $@

demo: $(STAMP) ## A marketplace of eight processes under load and SIGKILL, then the audit
	@$(BIN)/holdfast demo $(ARGS)

# Two files at a time, the long ones first (tests/conftest.py); ARGS="-n 0" runs them one by one.
test: $(STAMP) ## All tests but the long ones
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-wheel: $(STAMP) ## Build the wheel, install it into an empty environment, and try it there
	$(BIN)/python -m pytest -m wheel tests/house/test_wheel.py $(ARGS)

test-pythons: ## The tests on the other Pythons that are claimed, each in an environment of its own
	@failed=""; for python in $(PYTHONS); do \
		if $$python -c '' 2> /dev/null; then \
			$(MAKE) test PYTHON=$$python VENV=.venv-$$python || failed="$$failed $$python"; \
		else \
			echo "SKIPPED: $$python is not on PATH, or does not start; nothing was tested with it" >&2; \
		fi; \
	done; \
	test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }

check: lint types tidy docs coverage ## lint, types, tidy, docs and coverage

lint: $(STAMP) ## Format and lint rules, nothing changed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

# The nodejs wheel brings pyright its Node: a machine needs none of its own.
types: $(STAMP) ## Pyright, strict on src and examples
	$(BIN)/pyright

coverage: $(STAMP) ## How much of the package the quick tests run, in one figure (CONTRIBUTING.md says of what)
	$(BIN)/coverage run -m pytest -q -p no:xdist $(COVERED) $(ARGS)
	@echo "coverage: $$($(BIN)/coverage report --format=total) % of lines and branches"

tidy: $(STAMP) ## The house style, as a test
	$(BIN)/python -m pytest tests/house/test_tidy.py tests/house/test_words.py

bench: $(STAMP) ## Measure, and print the table
	@$(BIN)/python -m bench $(ARGS)

cost: $(STAMP) ## Processor time per command of a revision beside another one: ARGS="--old REV --new ."
	@$(BIN)/python -m bench.cost $(ARGS)

seeds: $(STAMP) ## Hashes of what the explorer's systems leave in their logs: ARGS="--check"
	@PYTHONPATH=.:tests:examples $(BIN)/python -m recorded.seeds $(ARGS)

soak: $(STAMP) ## The tests that run for minutes: crashes by the hundred, and processes under every fault at once
	$(BIN)/python -m pytest -m soak -o faulthandler_timeout=3600 $(ARGS)

docs: $(STAMP) ## Run every example of README and docs; find what no page mentions
	$(BIN)/python -m pytest tests/house/test_docs.py $(ARGS)

picture: $(STAMP) ## Draw docs/architecture.svg from the imports
	@PYTHONPATH=tests $(BIN)/python -m support.architecture

format: $(STAMP) ## Let ruff format the code and order its imports
	$(BIN)/ruff format .
	$(BIN)/ruff check --select I --fix .
