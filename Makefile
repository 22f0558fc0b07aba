# The verbs of this repository. Needs python3 >= 3.11 and make; everything else is installed into $(VENV).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# uv installs the whole environment in under a minute, pip takes several: without uv we ask pip for uv first.
# Byte code is compiled while installing: without it `import torch` takes more than twice as long.
UV := $(shell if uv --version >/dev/null 2>&1; then echo uv; else echo $(BIN)/uv; fi)
WITH_VENV := PATH="$(CURDIR)/$(BIN):$$PATH"

# One thread: models of tests are too small to gain from more, and busy processes that share cores wait for each other.
test test-slow test-hub test-gpu smoke: export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help install style check test test-slow test-hub test-gpu smoke demo build clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY) ## make .venv with everything development needs

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Expected Python 3.11 or newer, got $$($(PYTHON) --version 2>&1). Name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@if [ "$(UV)" = uv ]; then uv venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" $(VENV); \
		else $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv; fi
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e ".[dev]"
	@touch $@

style: $(READY) ## mend what ruff can mend, and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: $(READY) ## ruff, formatting, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(READY) ## the fast tests: offline, on a CPU
	HF_HUB_OFFLINE=1 $(WITH_VENV) $(BIN)/pytest -n 2

test-slow: $(READY) ## the slow tests: recipes launched as a user would
	HF_HUB_OFFLINE=1 $(WITH_VENV) $(BIN)/pytest -m slow

test-hub: $(READY) ## the tests that need the network and a Hub account
	$(WITH_VENV) $(BIN)/pytest -m hub

test-gpu: $(READY) ## the tests that need a CUDA device
	HF_HUB_OFFLINE=1 $(WITH_VENV) $(BIN)/pytest -m gpu

smoke: $(READY) ## every smoke configuration, each in seconds on a CPU
	@set -e; for config in $$(find recipes/configs/smoke -name '*.yaml' | sort); do \
		command="$$(sed -n '1s/^# *//p' $$config)"; \
		echo "$$command"; HF_HUB_OFFLINE=1 $(WITH_VENV) sh -c "$$command"; done

demo: $(READY) ## hear the embedded student judge a clip, then distil one
	$(WITH_VENV) python recipes/demo.py
	$(WITH_VENV) accelerate launch recipes/distill.py --labeled 0.1 --restart true

build: $(READY) ## the wheel, then its import in a clean environment
	rm -rf build dist
	$(UV) build --quiet --wheel --python $(BIN)/python --out-dir dist
	$(UV) venv --quiet --clear --python $(BIN)/python build/clean
	$(UV) pip install --quiet --python build/clean/bin/python -c constraints.txt dist/*.whl
	cd build && clean/bin/python -c 'import audio_emotion; print("imported", audio_emotion.__file__)'

clean: ## remove what builds, runs of tools and the environment left
	rm -rf $(VENV) build dist modeling/*.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
