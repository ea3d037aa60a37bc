# `make` lists the targets. They create the virtual environment .venv themselves; all that they need is Python 3.11 to
# 3.13 and a connection to the package index.
#
#   PYTHON=…      the interpreter for creating .venv (default: the newest tested one that is installed)
#   PYTEST_ARGS=… more arguments for pytest, for instance PYTEST_ARGS='-k cdc_file'
#   TEST_PROCESSES=…  processes that share the fast tests (default: 2; each needs up to 5 GB of memory)
#   CONFORMANCE_PYTHON=…  the interpreter for creating .venv-conformance: Python 3.9 to 3.11
#   BUNDLES=…             bundles that `make conformance` compares in addition to its own cases

VENV := .venv
PY := $(VENV)/bin/python
# Compile modules at their first import instead: that halves the time of installing.
PIP_INSTALL := $(PY) -m pip install -qq --disable-pip-version-check --no-compile
WORKDIR := runs/demo
# Contains the weights of DISTS. Installed without its requirements, among them PyTorch.
TEST_DATA := 'DISTS_pytorch==0.1'
# Each file's tests stay in one process.
TEST_PROCESSES := 2
PARALLEL := --numprocesses=$(TEST_PROCESSES) --dist=loadfile
# Time limit of a slow test.
SLOW_TEST_SECONDS := 1800
CONFORMANCE_VENV := .venv-conformance
CONFORMANCE_PY := $(CONFORMANCE_VENV)/bin/python
CONFORMANCE_FILE := build/conformance.npz

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-all conformance lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.installed-demo ## train a small codec on photographs, then compress one and back (under 10 minutes)
	@$(PY) -m cdc_jax.main --config=configs/demo.py --workdir='$(WORKDIR)'
	@echo "use it: $(VENV)/bin/cdc compress PHOTO --model $(WORKDIR)/bundle; leave --model out for the shipped model"

test: $(VENV)/.installed-test ## ruff and the fast tests
	@status=0; \
	$(PY) -m ruff check --quiet --output-format=concise . || status=1; \
	$(PY) -m pytest -q $(PARALLEL) -m 'not slow' $(PYTEST_ARGS) || status=$$?; \
	exit $$status

test-all: $(VENV)/.installed-test ## ruff and all tests, the slow ones too
	@status=0; \
	$(PY) -m ruff check --quiet --output-format=concise . || status=1; \
	$(PY) -m pytest -q --timeout=$(SLOW_TEST_SECONDS) $(PYTEST_ARGS) || status=$$?; \
	exit $$status

# Our side runs in .venv, tensorflow-compression in another environment. They exchange arrays in a file.
conformance: $(CONFORMANCE_VENV)/.installed $(VENV)/.installed-test ## compare the entropy model with tensorflow-compression's
	@$(PY) tests/conformance/our_side.py $(CONFORMANCE_FILE) $(BUNDLES)
	@$(CONFORMANCE_PY) -m pytest -q -c tests/conformance/pytest.ini --ours=$(CONFORMANCE_FILE) tests/conformance

lint: $(VENV)/.installed-test ## ruff only
	@$(PY) -m ruff check .

clean: ## remove .venv and .venv-conformance, caches and build outputs; trained models under runs/ stay
	@rm -rf $(VENV) $(CONFORMANCE_VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp file per installed extra. After a change of setup.py, make installs into the same environment again.
$(VENV)/.installed-%: setup.py $(VENV)/.created
	@echo "Installing the packages of '.[$*]' into $(VENV) (up to a minute) ..."
	@$(PIP_INSTALL) -e '.[$*]'
	@$(if $(filter test,$*),$(PIP_INSTALL) --no-deps $(TEST_DATA))
	@touch $@

# Run each candidate to see whether it works: one on PATH may be a version manager's placeholder that only prints an
# error, and Debian's Python lacks ensurepip unless python3-venv is installed.
$(VENV)/.created:
	@if $(PY) -m pip --version >/dev/null 2>&1; then touch $@; exit 0; fi; \
	for candidate in $(if $(PYTHON),'$(PYTHON)',python3.13 python3.12 python3.11 python3); do \
	    if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	        "$$candidate" -m venv --clear $(VENV) && touch $@; exit $$?; \
	    fi; \
	done; \
	if [ -n '$(PYTHON)' ]; then echo "PYTHON=$(PYTHON) is not a working Python 3.11 or newer with venv." >&2; \
	else echo "No Python 3.11 or newer with venv was found: install one (Debian and Ubuntu: python3 and python3-venv)," \
	    "or name it, for instance PYTHON=/opt/python3.12/bin/python3." >&2; fi; \
	exit 1

$(CONFORMANCE_VENV)/.installed: requirements-conformance.txt $(CONFORMANCE_VENV)/.created
	@echo "Installing tensorflow-compression into $(CONFORMANCE_VENV) (a minute or two) ..."
	@$(CONFORMANCE_PY) -m pip install -qq --disable-pip-version-check --no-compile -r requirements-conformance.txt
	@touch $@

# tensorflow-compression supports Python 3.9 to 3.11.
$(CONFORMANCE_VENV)/.created:
	@for candidate in $(if $(CONFORMANCE_PYTHON),'$(CONFORMANCE_PYTHON)',python3.11 python3.10 python3.9 python3); do \
	    if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 9) <= sys.version_info < (3, 12))' >/dev/null 2>&1; then \
	        "$$candidate" -m venv --clear $(CONFORMANCE_VENV) && touch $@; exit $$?; \
	    fi; \
	done; \
	if [ -n '$(CONFORMANCE_PYTHON)' ]; then \
	    echo "CONFORMANCE_PYTHON=$(CONFORMANCE_PYTHON) is not a working Python 3.9 to 3.11 with venv." >&2; \
	else echo "No Python 3.9 to 3.11 with venv was found, and tensorflow-compression supports no newer one: install one," \
	    "or name it, for instance CONFORMANCE_PYTHON=/opt/python3.11/bin/python3." >&2; fi; \
	exit 1
