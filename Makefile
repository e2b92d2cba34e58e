# Makes .venv, installs, and calls; plain pip lines stand in README.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all lint docs reference clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

demo: $(VENV)/installed
	rm -rf cxr-demo
	$(BIN)/cxr demo cxr-demo

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2

# Then what pytest leaves out unless asked (pyproject.toml).
test-all: test
	$(BIN)/python -m pytest -n 2 -m "needs_debian or takes_minutes"

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

reference: $(VENV)/installed
	$(BIN)/python tools/reference.py

clean:
	rm -rf $(VENV) cxr-demo site
