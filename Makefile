# Each target does its own set-up in .venv, in any order; a second run sets up nothing anew.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
ifeq ($(shell uname),Linux)
SCREEN := QT_QPA_PLATFORM=xcb xvfb-run -a -s "-screen 0 1280x1024x24"
endif

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint bench docs venv window

help: ## List the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: .venv/.run ## Segment the packaged scenes from a few clicks; results in samic-demo/
	$(BIN)/napari-samic demo --out samic-demo --overwrite

test: .venv/.dev window ## Run all tests, the slow ones too, on a virtual screen
	OMP_NUM_THREADS=1 $(SCREEN) $(BIN)/pytest -m "" -n 2 --dist loadfile

lint: .venv/.dev ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.dev ## Time the literal pipeline and ours in turn; fails where we became slower
	$(BIN)/python benchmarks/baseline.py --check --out benchmarks/RESULTS.md

docs: .venv/.docs ## Build the documentation into docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going docs docs/_build/html

venv: .venv/.dev

window:
	@.ci/debian.sh window

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  f"Python {sys.version.split()[0]} found, 3.11 or newer needed: make PYTHON=python3.12 ...")'
	@PYTHON=$(PYTHON) .ci/debian.sh venv
	$(PYTHON) -m venv .venv

.venv/.run: pyproject.toml | .venv/bin/pip
	@echo "Installing into .venv; the first time, torch takes some minutes and gigabytes."
	@$(BIN)/python -m pip install --quiet "pip>=25.1"
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

.venv/.dev .venv/.docs: .venv/.%: pyproject.toml | .venv/bin/pip
	@echo "Installing into .venv; the first time, torch takes some minutes and gigabytes."
	@$(BIN)/python -m pip install --quiet "pip>=25.1"
	$(BIN)/python -m pip install --quiet -e . --group $*
	@touch .venv/.run $@
