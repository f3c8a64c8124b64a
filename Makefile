# Needs Python 3.11 to 3.13 and make; everything else is installed into .venv on first use.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt

.PHONY: demo test format clean

demo: .venv/installed
	$(BIN)/delf-jax demo --out demo_out

test: .venv/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

format: .venv/installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .cache build dist *.egg-info demo_out

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/installed: setup.cfg constraints.txt | $(BIN)/python
	$(PIP) --editable .
	touch $@

.venv/installed-test: setup.cfg constraints.txt | $(BIN)/python
	$(PIP) --editable '.[test,heif,ray,sfm,web,docs,browser,notebooks]'
	touch $@
