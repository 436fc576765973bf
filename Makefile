# All commands. `make` lists them. STUDY=… names a study: a path, or a name in studies/ (default:
# config.yaml). ARGS="…" is passed to the tool behind a target.

PYTHON ?= python3
ARGS ?=
STUDY ?=
FILE ?=
VARIABLES := PYTHON ARGS STUDY FILE

# Another variable would change nothing, so the default study would run instead of the one meant.
given := $(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),$(name)))
unknown := $(filter-out $(VARIABLES),$(given))
ifneq ($(unknown),)
wrong := $(firstword $(unknown))
$(error $(wrong)= is unknown here: name a study by STUDY=, \
such as $(if $(filter con% CON% stud% STUD%,$(wrong)),STUDY=$($(wrong)),STUDY=mnist), \
and pass other options by ARGS="…"; all variables are $(VARIABLES))
endif

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The environment comes first in PATH, so that `python` has the versions of the lock file.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

LOCK := envs/requirements.txt
UV := .venv/uv/bin/uv
# One worker per core, with one thread each; more workers are not faster. A worker takes a whole file,
# because its tests share what they build.
PYTEST := OMP_NUM_THREADS=1 pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# expands to nothing without STUDY
study := $(if $(STUDY),--study '$(STUDY)')

.PHONY: help env run why cost figures origin audit reproduce explore orphans test test-slurm test-all lint bench docs lock

help: ## list all commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

env: ## install envs/requirements.txt into .venv, if it changed (2 min, 6 GB)
	@PYTHON='$(PYTHON)' envs/install.sh

run: env ## run the study in config.yaml (5 to 10 min; another study: make run STUDY=mnist)
	@python workflow/scripts/run.py $(study) $(ARGS)

why: env ## list the jobs that would run, and why (another study: STUDY=mnist)
	@python workflow/scripts/why.py $(study) $(ARGS)

cost: env ## estimate jobs, disk and hours of a study before it runs: make cost STUDY=mnist
	@python workflow/scripts/run.py $(study) $(ARGS) cost

figures: env ## draw the figures of a study, and run what they need: make figures STUDY=mnist
	@python workflow/scripts/run.py $(study) $(ARGS) figures

origin: env ## trace a result back to the data: make origin FILE=results/digits/figures/scatter.svg
	@python workflow/scripts/origin.py $(FILE) $(ARGS)

audit: env ## check that results match their checksums, the config and the code (after a copy: ARGS=--adopt; altered: ARGS=--repair)
	@python workflow/scripts/audit.py $(study) $(ARGS)

reproduce: env ## run a study and compare every number with the published one: make reproduce STUDY=digits
	@python workflow/scripts/reproduce.py $(study) $(ARGS)

explore: env ## open an interactive page of the results (another study: STUDY=mnist)
	python workflow/scripts/explore.py $(study) $(ARGS)

orphans: env ## list Slurm jobs that a killed Snakemake left behind (cancel them: ARGS=--cancel)
	@python workflow/scripts/orphans.py $(ARGS)

test: env ## run the fast tests, without data, browser or cluster (9 min; fewer: ARGS="tests/unit -k fisher")
	$(PYTEST) -m "not (slow or data or browser or slurm or gpu)" --hypothesis-profile quick $(ARGS)

test-slurm: env ## run the tests on a Slurm cluster that they start (6 min; needs root and Debian's Slurm)
	pytest tests/slurm

# The tests on Slurm mostly wait, so they run next to the others; their output comes first.
test-all: env ## run all tests; skip those whose data, Chromium, Slurm or GPU is missing (30 min)
	@output=$$(mktemp); \
	$(PYTEST) -m "not slurm" $(ARGS) >"$$output" 2>&1 & others=$$!; \
	pytest tests/slurm && slurm=0 || slurm=$$?; \
	tail --pid=$$others -n +1 -f "$$output"; rm "$$output"; \
	wait $$others && exit $$slurm

lint: env ## check style, types and the workflow
	ruff check
	ruff format --check
	mypy
	snakefmt --check Snakefile workflow/Snakefile workflow/rules
	snakemake --lint

# Scripts that measure no time have no results to save.
bench: env ## compare the speed with other code (90 s: ARGS=--quick; for the pages: ARGS=--save)
	@scripts=(benchmarks/*.py); \
	[[ '$(ARGS)' != *--save* ]] || scripts=($$(grep -l '^from timing' benchmarks/*.py)); \
	for script in "$${scripts[@]}"; do echo "== $$script"; python "$$script" $(ARGS); done

docs: env ## build the documentation as a site in site/ (the first time: install envs/docs.txt)
	@$(UV) venv --quiet --allow-existing --python .venv/bin/python .venv-docs
	@$(UV) pip sync --quiet --python .venv-docs/bin/python --require-hashes envs/docs.txt
	@# not --quiet: then --strict overlooks warnings
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

lock: env ## refresh the lock files with minimal changes (newest versions: ARGS=--upgrade)
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --all-extras --group dev pyproject.toml -o $(LOCK) $(ARGS)
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --group docs -o envs/docs.txt $(ARGS)
