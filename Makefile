# What can be done here. `make` alone lists it; ARGS="…" is handed on to the tool behind a target.

PYTHON ?= python3
ARGS ?=

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The environment's tools come first, so that a rule's `python` is the one that the lock describes.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

LOCK := envs/requirements.txt
UV := .venv/uv/bin/uv
# One worker per core, each on one thread; more workers are no faster. A worker takes a whole file at a time, because its tests
# share what they build.
PYTEST := OMP_NUM_THREADS=1 pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: help env run why origin audit reproduce explore orphans test test-slurm test-all lint bench lock

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

env: ## install what envs/requirements.txt pins into .venv, unless it is there (2 min)
	@PYTHON='$(PYTHON)' envs/install.sh

run: env ## run the study in config.yaml, from data to report (4 to 9 min; another one: ARGS="--configfile studies/….yaml")
	snakemake --cores all --rerun-incomplete $(ARGS)

why: env ## what would run, and which file or key it is because of (another study: CONFIG=studies/….yaml)
	@python workflow/scripts/why.py $(if $(CONFIG),--configfile $(CONFIG)) $(ARGS)

origin: env ## where a result came from, back to the data: make origin FILE=results/digits/figures/scatter.svg
	@python workflow/scripts/origin.py $(FILE) $(ARGS)

audit: env ## whether results are what was made, and what this config and this code make (after a copy: ARGS=--adopt)
	@python workflow/scripts/audit.py $(if $(CONFIG),--configfile $(CONFIG)) $(ARGS)

reproduce: env ## run a study and compare every number with what was published below docs/: make reproduce STUDY=digits
	@python workflow/scripts/reproduce.py $(STUDY) $(ARGS)

explore: env ## look at results in a browser (another study: ARGS=results/mnist)
	python workflow/scripts/explore.py $(ARGS)

orphans: env ## list Slurm jobs that a killed launcher left behind (to cancel them: ARGS=--cancel)
	@python workflow/scripts/orphans.py $(ARGS)

test: env ## test what a change can break; needs no data, browser or cluster (9 min; fewer: ARGS="tests/unit -k fisher")
	$(PYTEST) -m "not (slow or data or browser or slurm or gpu)" --hypothesis-profile quick $(ARGS)

test-slurm: env ## run jobs on a Slurm cluster that is started for the tests (7 min; needs root and Debian's Slurm)
	pytest tests/slurm

test-all: test-slurm ## run every test: also slow ones, and those of data, Chromium, Slurm and GPUs that are there
	$(PYTEST) -m "not slurm" $(ARGS)

lint: env ## check style, types and the workflow; changes nothing
	ruff check
	ruff format --check
	mypy
	snakefmt --check Snakefile workflow/rules
	snakemake --lint

bench: env ## compare speed with named peers (in under a minute: ARGS=--quick)
	@shopt -s nullglob; scripts=(benchmarks/*.py); \
	(($${#scripts[@]})) || echo "No benchmarks yet: there is no benchmarks/*.py."; \
	for script in "$${scripts[@]}"; do echo "== $$script"; python "$$script" $(ARGS); done

lock: env ## refresh the lock file with minimal changes (all packages to the newest: ARGS=--upgrade)
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --group dev pyproject.toml -o $(LOCK) $(ARGS)
