# The two commands of the README are `make demo` and `make test`; both make .venv first.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test check check-long bench clean

demo: .venv/.installed            ## run the embedded quickstart and say where its report is
	$(BIN)/lrstudy run

test: .venv/.installed-dev        ## all tests that CI runs
	$(BIN)/python -m pytest -m "not long"

check: .venv/.installed-dev       ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layers.py

check-long: .venv/.installed-dev  ## the suites that are too long for CI
	$(BIN)/python -m pytest -m long

bench: .venv/.installed-dev       ## measure everything in benchmarks/ anew: some hours on an idle machine
	$(BIN)/python -m benchmarks

.venv/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "lrstudy needs Python 3.11 or newer; set PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.installed: .venv/.created pyproject.toml constraints.txt
	$(PIP) --editable .
	@touch $@

.venv/.installed-dev: .venv/.created pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	@touch $@ .venv/.installed

clean:
	rm -rf .venv build dist
