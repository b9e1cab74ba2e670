# Each target is a line or two that you can type yourself without make. `make help` lists them.
# TORCH=cpu (the default) takes PyTorch's CPU build; TORCH=cuda takes the default build, several GB on Linux.

PYTHON ?= python3
TORCH ?= cpu
TORCH_VERSION := 2.13.0
RUN ?= runs/mine
BUNDLE ?= bundles/quickstart
PORT ?= 8000
ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --no-deps
ONE_THREAD := OMP_NUM_THREADS=1
CLOSED := OMP_NUM_THREADS=1 PYTHONHASHSEED=0 PYTHONPATH=$(CURDIR)/tests/notebooks/closed_network
START := $(shell date +%s)
TOOK = echo "$(1) ready, $$(( $$(date +%s) - $(START) )) s."

.DEFAULT_GOAL := help
unexport PYTHONDONTWRITEBYTECODE # compiled modules make every command start seconds earlier
.NOTPARALLEL:
.PHONY: help doctor setup install-dev quickstart train evaluate serve lab lint docs notebooks check-notebooks mutants test lock clean

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 18

# --- Set-up: the files in .venv that begin with .made remember what is done, so a second run does nothing --------------

setup: .venv/.made-core ## a virtual environment in .venv with what running needs

install-dev: .venv/.made-dev ## the same, and notebooks, tests, lint

doctor: ## is this machine ready? installs nothing; ARGS=--json for a teacher
	@if [ -x $(BIN)/python ]; then $(BIN)/python doctor.py $(ARGS); else $(PYTHON) doctor.py $(ARGS); fi

.venv/.made:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "This needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is %d.%d. Try: make setup PYTHON=python3.12" % v)'
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.made-torch-$(TORCH)-$(TORCH_VERSION): .venv/.made
ifeq ($(TORCH),cpu)
	$(INSTALL) --retries 0 --timeout 15 --index-url https://download.pytorch.org/whl/cpu torch==$(TORCH_VERSION) 2>.venv/torch.log \
	|| { echo "PyTorch's own index did not answer (.venv/torch.log); taking the default one."; $(PIP) install torch==$(TORCH_VERSION); }
else
	$(INSTALL) --force-reinstall torch==$(TORCH_VERSION) && $(PIP) install torch==$(TORCH_VERSION)
endif
	@rm -f .venv/.made-torch-* && touch $@

.venv/.made-core: requirements.lock pyproject.toml .venv/.made-torch-$(TORCH)-$(TORCH_VERSION)
	$(INSTALL) --require-hashes -r requirements.lock
	$(INSTALL) --no-build-isolation -e .
	@$(PIP) check && touch $@ && $(call TOOK,Set-up)

.venv/.made-serving: requirements-serving.lock .venv/.made-core
	$(INSTALL) --require-hashes -r requirements-serving.lock
	@$(PIP) check && touch $@

.venv/.made-dev: requirements-dev.lock .venv/.made-core
	$(INSTALL) --require-hashes -r requirements-dev.lock
	@$(PIP) check && touch $@ && $(call TOOK,Development set-up)

# --- Use -----------------------------------------------------------------------------------------------------------------

quickstart: setup ## train, measure, export and ask: MovieLens 100K in under a minute
	$(BIN)/twotower train out=runs/quickstart --force
	$(BIN)/twotower evaluate runs/quickstart part=test --against popularity,item-knn,ease,ials
	$(BIN)/twotower export runs/quickstart bundles/quickstart --force
	$(BIN)/twotower query bundles/quickstart --user 196 -k 10
	@echo "Next: twotower_lib/__init__.py is the map of the code; make lab opens the course."

train: setup ## train a model of your own: make train RUN=runs/a ARGS="data=toy train.epochs=5"
	$(BIN)/twotower train out=$(RUN) $(ARGS)

evaluate: setup ## measure it: make evaluate RUN=runs/a ARGS="--against popularity,ease"
	$(BIN)/twotower evaluate $(RUN) $(ARGS)

serve: .venv/.made-serving ## answer over HTTP: make serve BUNDLE=bundles/quickstart PORT=8000
	$(BIN)/twotower serve $(BUNDLE) --port $(PORT)

lab: install-dev ## open the notebooks
	$(BIN)/jupyter lab notebooks

# --- Check ---------------------------------------------------------------------------------------------------------------

lint: install-dev ## style, types, layers, size
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/size_table.py

docs: install-dev ## is what is generated still what the code generates?
	$(BIN)/python scripts/dataset_readme.py --check && $(BIN)/python scripts/readme_tables.py --check
	$(BIN)/python scripts/student_copies.py --check

notebooks: install-dev ## run the notebooks anew; outputs that are as good stay as they are
	$(BIN)/twotower fetch ml-100k
	$(BIN)/python scripts/notebooks.py

check-notebooks: install-dev ## run every notebook and compare its outputs with those stored
	$(BIN)/twotower fetch ml-100k
	$(BIN)/python scripts/notebooks.py --check
	$(if $(wildcard notebooks/*.ipynb),$(CLOSED) $(BIN)/pytest --nbval --nbval-current-env \
	--nbval-sanitize-with tests/sanitize.cfg --nbval-cell-timeout=120 -n 2 --dist loadscope notebooks/)

mutants: install-dev ## change each formula and see its test turn red
	$(ONE_THREAD) $(BIN)/pytest -p no:nbval -m mutants

test: install-dev lint docs check-notebooks mutants ## everything that CI checks
	$(ONE_THREAD) $(BIN)/pytest -p no:nbval -n 2 --doctest-modules twotower_lib tests

# --- Keep ----------------------------------------------------------------------------------------------------------------

lock: install-dev ## write the locks and environment.yml from pyproject.toml: make lock ARGS=--upgrade
	$(BIN)/python scripts/lock.py $(ARGS)

clean: ## remove what can be made again; runs/ and bundles/ stay
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
