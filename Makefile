# Development commands. Needs python3 >= 3.11 and make; everything else is installed into $(VENV).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# uv installs the whole environment in under a minute, pip takes several: without uv, pip installs uv first.
# Byte code is compiled while installing: without it `import torch` takes more than twice as long.
UV := $(shell if uv --version >/dev/null 2>&1; then echo uv; else echo $(BIN)/uv; fi)
WITH_VENV := PATH="$(CURDIR)/$(BIN):$$PATH"

# One thread: the test models are too small to gain from more, and processes would compete for the cores.
test test-slow test-hub test-gpu smoke: export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help install style check test test-slow test-hub test-gpu smoke demo docs build clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY) ## create .venv with all development dependencies

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Expected Python 3.11 or newer, got $$($(PYTHON) --version 2>&1). Name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@if [ "$(UV)" = uv ]; then uv venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" $(VENV); \
		else $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv; fi
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e ".[dev]"
	@touch $@

style: $(READY) ## fix lint errors and format with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: $(READY) ## ruff, formatting and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(READY) ## fast tests, offline on a CPU
	HF_HUB_OFFLINE=1 $(WITH_VENV) $(BIN)/pytest -n 2

test-slow: $(READY) ## slow tests, which launch recipes as a user would
	HF_HUB_OFFLINE=1 $(WITH_VENV) $(BIN)/pytest -m slow

test-hub: $(READY) ## tests that need a network and a Hub account
	$(WITH_VENV) $(BIN)/pytest -m hub

test-gpu: $(READY) ## tests that need a CUDA device
	HF_HUB_OFFLINE=1 $(WITH_VENV) $(BIN)/pytest -m gpu

smoke: $(READY) ## run every smoke configuration, each in seconds on a CPU
	@set -e; for config in $$(find recipes/configs/smoke -name '*.yaml' | sort); do \
		command="$$(sed -n '1s/^# *//p' $$config)"; \
		echo "$$command"; HF_HUB_OFFLINE=1 $(WITH_VENV) sh -c "$$command"; done

# Without a launcher: one process, and none of the launcher's notes on defaults.
demo: $(READY) ## predict the emotion of a clip, then distill a student (about 3 minutes)
	@printf '%s\n' 'This demo' \
		'  1. predicts the emotion of a bundled clip with the default model and plots it (about 10 seconds),' \
		'  2. trains a teacher on synthetic sounds and distills it into a student (about 2 minutes).'
	@printf '\n%s\n' '1. python recipes/demo.py'
	@$(WITH_VENV) python recipes/demo.py
	@printf '\n%s\n\n' '2. python recipes/distill.py --labeled 0.1 --restart true'
	@$(WITH_VENV) python recipes/distill.py --labeled 0.1 --restart true

docs: $(READY) ## build the documentation site in build/site, with a link check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open build/site/index.html, or run $(BIN)/mkdocs serve."

build: $(READY) ## build the wheel and import it in a clean environment
	rm -rf build dist
	$(UV) build --quiet --wheel --python $(BIN)/python --out-dir dist
	$(UV) venv --quiet --clear --python $(BIN)/python build/clean
	$(UV) pip install --quiet --python build/clean/bin/python -c constraints.txt dist/*.whl
	cd build && clean/bin/python -c 'import audio_emotion; print("imported", audio_emotion.__file__)'

clean: ## remove the environment and all build and tool output
	rm -rf $(VENV) build dist modeling/*.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
