# Needs Python 3.11 or newer and make; everything else goes into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint bench format lock clean

demo: .venv/.base
	$(BIN)/seqd demo --output demo

test: lint
	$(BIN)/pytest

lint: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.dev
	$(BIN)/python -m benchmarks.engine

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Newest versions that the project's bounds admit, tested before they are kept.
lock:
	rm -rf .venv && $(PYTHON) -m venv .venv
	PIP_CONSTRAINT= $(BIN)/pip install -q -e '.[dev,train]' 'torch==2.13.0'
	(echo '# Versions that seqd is tested with; `make lock` writes them anew.'; \
	 $(BIN)/pip freeze --exclude-editable | sed 's/+cpu//') > constraints.txt
	$(BIN)/pip list --format=freeze | grep '^setuptools==' >> constraints.txt

clean:
	rm -rf .venv demo build dist *.egg-info

.venv/.base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -e .
	touch $@

.venv/.dev: .venv/.base
	$(BIN)/pip install -q -e '.[dev,train]'
	touch $@
