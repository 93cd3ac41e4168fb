# make sweep, make test: nothing is needed beforehand but make and Python 3.11 or newer. `make help` tells the rest.
#
# PYTHON=python3.12   the interpreter that makes the virtual environment
# VENV=/some/venv     an environment that has everything already: it is used as it is, nothing is installed into it
# ARGS="-k color"     further arguments for the command that the target runs

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
FAULTS ?= 20

python := $(VENV)/bin/python
ifeq ($(origin VENV),file)
environment := $(VENV)/installed
endif

.PHONY: help sweep survey survey-load bench test test-all faults lint lock
.DEFAULT_GOAL := help

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@sed -n '3,5s/^# /         /p' $(MAKEFILE_LIST)

sweep: $(environment) ## tune and train every contender of tune_configs/rebalance.yaml, print the table
	$(python) -m platform.sweep tune_configs/rebalance.yaml $(ARGS)

survey: $(environment) ## ask people: the survey and the dashboard in a browser
	$(python) -m survey_app.serve $(ARGS)

survey-load: $(environment) ## 30 participants at once on a server of its own, and the time from answer to next question
	$(python) -m tests.survey_load $(ARGS)

bench: $(environment) ## compare with what people would write and with the floor: docs/benchmarks-*.md, in about 15 minutes
	$(python) -m benchmarks $(ARGS)

test: $(environment) ## run the tests, two at a time, but for the long ones
	$(python) -m pytest -n 2 --no-loadscope-reorder -m 'not long' $(ARGS)

test-all: $(environment) ## run all tests, as a change must pass them
	$(python) -m pytest -n 2 --no-loadscope-reorder $(ARGS)

faults: $(environment) ## break things for long: FAULTS=20 times as often as `make test-all` does; docs/reliability.md
	HUEJURY_FAULTS=$(FAULTS) $(python) -m pytest -o timeout=7200 tests/test_faults_*.py tests/*/test_faults_*.py tests/*/faults_*.py $(ARGS)

lint: $(environment) ## check style and types
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy

lock: ## write constraints.txt anew from the versions in pyproject.toml
	$(PYTHON) -m venv .venv/lock
	.venv/lock/bin/python -m pip install --quiet uv==0.13.9
	.venv/lock/bin/uv pip compile --universal --python-version 3.11 --all-extras --no-build --no-annotate \
		--strip-extras --no-emit-index-url --custom-compile-command "make lock" --output-file constraints.txt pyproject.toml

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "HueJury needs Python 3.11 or newer, and $(PYTHON) is not. Name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(python) -m pip install --constraint constraints.txt '.[dev,optuna]'
	@touch $@
