# Two commands: `make demo` sets up and runs the demo, `make test` sets up and passes the tests.
# Everything goes into .venv; `make help` lists the rest.

# The first of these that runs and is new enough; a version manager's shims may not run.
PYTHON ?= $(shell for found in python3 python3.13 python3.12 python3.11; do \
  $$found -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$found && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Python compiles what is imported when it is, a small part of all that is installed.
INSTALL := $(BIN)/python -m pip install --quiet --no-compile

.DEFAULT_GOAL := help
.PHONY: help demo models quick test coverage check format docs pictures bench clean

help:  ## List the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(STAMP)  ## Set up, and watch the cache work on a stream of customer questions
	$(BIN)/glasscache demo

models: $(STAMP)  ## Add sentence-transformers: for any other model, and for tests that compare with it
	$(INSTALL) --constraint constraints.txt --editable '.[models]' --group reference

# What collecting the integrations imports takes as long as all the tests that are left.
quick: $(STAMP)  ## Run the tests of parts, without a server, browser or whole cache: for every save
	$(BIN)/pytest -q -n 3 --dist loadfile --ignore=tests/integrations \
	  -m "not server and not browser and not slow and not whole"

test: check suite  ## Set up, check style, types and structure, and run all tests

.PHONY: suite
suite: $(STAMP) system
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not pictures"

coverage: $(STAMP) system  ## Run all tests and measure branches; takes twice as long as `make test`
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not pictures" --cov --cov-report=term

check: style mypy pyright structure  ## Style, types and structure only; with -j2, side by side

.PHONY: style mypy pyright structure
style: $(STAMP)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
mypy: $(STAMP)
	$(BIN)/mypy
pyright: $(STAMP)
	$(BIN)/basedpyright --pythonpath $(BIN)/python
structure: $(STAMP)
	$(BIN)/lint-imports
	$(BIN)/python -m grafana.generate --check

format: $(STAMP)  ## Format the code
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: $(STAMP)  ## Build the site into site/
	$(BIN)/mkdocs build --strict

pictures: $(STAMP) system  ## Fetch Grafana's components from npm (600 MB), and test that all panels are drawn
	$(BIN)/python -m grafana.pictures.build
	$(BIN)/pytest -q -m pictures tests/grafana

bench: $(STAMP) system  ## Measure lookups against a raw Redis GET, and growth to 100,000 entries
	$(BIN)/python -m benchmarks.lookup
	$(BIN)/python -m benchmarks.growth

clean:  ## Remove what the commands made
	rm -rf $(VENV) build dist site .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Without torch: `make models` adds it. The installed metadata have the version of __init__.py.
$(STAMP): pyproject.toml cache_core/__init__.py
	@test -n "$(PYTHON)" || { echo "glasscache needs Python 3.11 or newer: set PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "python venv is missing: apt-get install python3-venv"; rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(INSTALL) --editable '.[all]' --group dev --group integrations --group docs
	@touch $(STAMP)

.PHONY: system
# Tests talk to real servers; they are installed when this may be done, and else the tests skip.
PROGRAMS := redis-server prometheus prometheus-alertmanager prometheus-redis-exporter chromium nginx
system:
	@missing=""; for program in $(PROGRAMS); do \
	  command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	if [ -n "$$missing" ]; then \
	  if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing; \
	  else echo "tests that need these programs are skipped:$$missing (apt-get or brew install)"; fi; fi
