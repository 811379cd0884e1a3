# The course, its tests and its upkeep. `make help` lists the targets.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Test processes; each takes 1 to 2 GB. One thread each, so that they do not compete for the cores.
WORKERS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal
QUICK := not (long or notebooks or browser or slow or network)

.PHONY: help setup setup-dev course site-runtime site check test lab verify lint bench full readme clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(VENV)/.installed  ## make .venv with everything the course needs

$(VENV)/.installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: $(PYTHON) not found; install Python 3.11, or name yours: make PYTHON=python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[offline,site,deploy]'
	@touch $@

setup-dev: $(VENV)/.installed-dev  ## add what tests, checks and benchmarks need

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[offline,site,deploy,scale,dev]'
	@touch $@

course: setup  ## run all notebooks end to end on the embedded data, into output/
	$(BIN)/patchcore-course run --profile default --output output

site-runtime: setup  ## bring in ONNX Runtime Web by npm, for the site's page "In your browser"; once
	@$(BIN)/python docs/web/site_runtime.py

site: setup  ## build the web site of the runs in output/, into output/site; needs no network
	@PYTHONPATH=docs $(BIN)/python docs/web/make_site.py --runs output --output output/site

check: lint  ## lint, types and the quick tests; about a minute on two cores
	$(PYTEST) -m "$(QUICK)"

test: lint  ## run every test; about twenty minutes on two cores
	$(PYTEST) -m "not slow and not network"

lint: setup-dev verify  ## style, types, layers, and the form of the notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lab: setup  ## open the course in JupyterLab; ARGS="--no-browser --allow-root" in a container
	$(BIN)/jupyter lab --notebook-dir notebooks $(ARGS)

verify: setup  ## check that notebooks hold no outputs, no stale numbers and no untyped parameters
	$(BIN)/python docs/verify.py

bench: setup-dev  ## measure the timed claims side by side; an hour or two on an idle machine
	$(BIN)/python -m benchmarks.extraction
	$(BIN)/python -m benchmarks.sliders
	$(BIN)/python -m benchmarks.coreset
	$(BIN)/python -m benchmarks.predict
	$(BIN)/python -m benchmarks.deploy
	$(BIN)/python -m benchmarks.teach
	$(BIN)/python -m benchmarks.in_browser
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.full
	$(BIN)/python -m benchmarks.since
	$(BIN)/python -m benchmarks.peer
	$(BIN)/python -m benchmarks.peer --parts extract --isa avx2
	$(BIN)/python -m benchmarks.peer --parts extract --busy

full: setup  ## run the experiments on MVTec AD, VisA and AITEX; data/README.md says how to get them
	$(BIN)/patchcore-course run 1 4 5 6 7 --profile full --output output/full --timeout 86400

clean:  ## remove what runs have written
	rm -rf output .pytest_cache .ruff_cache .mypy_cache .hypothesis

readme: course  ## run what has changed, copy numbers and pictures, write the README's tables
	$(BIN)/python docs/verify.py --summaries output --fix
	$(BIN)/python docs/readme.py --take output
