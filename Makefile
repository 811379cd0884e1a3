# The course, its tests and its upkeep. `make help` lists the targets.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help setup course test lab verify lint bench faults full readme clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(VENV)/.installed  ## make .venv with everything the course needs

$(VENV)/.installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { \
	  echo "make: $(PYTHON) not found; install Python 3.11, or name yours: make PYTHON=python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[offline,scale,dev]'
	@touch $@

course: setup  ## run all notebooks end to end on the embedded data, into output/
	$(BIN)/patchcore-course run --profile default --output output

test: setup  ## run every test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/verify.py
	$(BIN)/python -m pytest -m "not slow and not network"

lab: setup  ## open the course in JupyterLab; ARGS="--no-browser --allow-root" in a container
	$(BIN)/jupyter lab --notebook-dir notebooks $(ARGS)

verify: setup  ## check that every notebook keeps the form of a lesson
	$(BIN)/python docs/verify.py

bench: setup  ## measure the timed claims side by side; about an hour on an idle machine
	cd benchmarks && ../$(BIN)/python extraction.py
	cd benchmarks && ../$(BIN)/python sliders.py
	cd benchmarks && ../$(BIN)/python coreset.py
	cd benchmarks && ../$(BIN)/python predict.py
	cd benchmarks && ../$(BIN)/python scale.py
	cd benchmarks && ../$(BIN)/python full.py

faults: setup  ## kill, fuzz and starve everything on purpose; 6 to 16 minutes
	$(BIN)/python tests/faults.py --kills 40 --files 1000 --markdown docs/faults.md

full: setup  ## run the experiments on MVTec AD, VisA and AITEX; data/README.md says how to get them
	$(BIN)/patchcore-course run 1 4 5 6 7 --profile full --output output/full --timeout 86400

clean:  ## remove what runs have written
	rm -rf output .pytest_cache .ruff_cache .hypothesis

readme: course  ## run what has changed, take numbers and pictures over, write the README's tables
	$(BIN)/python docs/verify.py --summaries output --fix
	$(BIN)/python docs/readme.py --take output
