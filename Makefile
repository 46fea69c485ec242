# Set-up and checks. `make help` lists the targets.

PYTHON ?= python3
VENV ?= .venv
# Options for pip, for example --extra-index-url for an index with CPU builds of torch, which training needs.
PIP_FLAGS ?=
# Arguments for the program that a target runs: make test ARGS="-k search"
ARGS ?=
# For train-cifar: a folder with CIFAR-10 as train-*.parquet and test-*.parquet (columns `img`, `label`), and the number
# of processes. The resulting weights depend on this number.
CIFAR ?= cifar10
PROCESSES ?= 2

RUN := $(VENV)/bin
PIP := $(RUN)/python -m pip install --disable-pip-version-check --use-pep517 --constraint constraints.txt $(PIP_FLAGS)
VERSION := import sys; print(sys.version_info[:2])
# Stamp files for the content of the environment. The first means the packages for profiling, verifying, searching and
# exporting. The second means all packages, also those for training (torch) and development.
COMMANDS := $(VENV)/.holds-commands
EVERYTHING := $(VENV)/.holds-everything

.PHONY: help quickstart train-cifar test slow-test long-test install lint format clean environment
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

quickstart: $(COMMANDS) ## profile this machine, verify the table, search, export; writes out/quickstart/
	@$(RUN)/python examples/quickstart.py $(ARGS)

OFA_TRAIN := OMP_NUM_THREADS=1 $(RUN)/python -m torch.distributed.run --standalone --nproc-per-node $(PROCESSES) \
  -m ofa_search.train_cli
ON_CIFAR := --data $(CIFAR) --test-data $(CIFAR) --device cpu --threads 1

train-cifar: $(EVERYTHING) ## train the included supernet and predictors for cifar-mbv3 on two CPU cores; writes out/cifar/
	$(OFA_TRAIN) supernet $(ON_CIFAR) --out out/cifar/supernet --carry table \
	  --schedule cifar-cpu --optimizer sgd --learning-rate 0.08 --weight-decay 5e-4
	$(OFA_TRAIN) predictor $(ON_CIFAR) --out out/cifar/predictor --samples 700 \
	  --supernet out/cifar/supernet/supernet.safetensors
	$(OFA_TRAIN) predictor --data $(CIFAR) --device cpu --threads 1 --out out/cifar/mixed --precision mixed --samples 350 \
	  --supernet out/cifar/supernet/supernet.safetensors --from out/cifar/predictor/predictor.safetensors

# One thread each for matrices: two processes with two threads would share two cores twice.
test: $(EVERYTHING) ## run the tests in two processes
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -n 2 --dist loadfile $(ARGS)

slow-test: $(EVERYTHING) ## run the slow tests in two processes
	$(RUN)/python -m pytest -m "slow and not long" -n 2 --dist loadfile $(ARGS)

long-test: $(EVERYTHING) ## run the longest tests in two processes
	$(RUN)/python -m pytest -m long -n 2 --dist loadfile $(ARGS)

install: $(EVERYTHING) ## create the environment .venv with all packages

lint: $(EVERYTHING) ## check style and types
	$(RUN)/python -m ruff check .
	$(RUN)/python -m ruff format --check .
	$(RUN)/python -m mypy

format: $(EVERYTHING) ## format the code and fix style
	$(RUN)/python -m ruff check --fix .
	$(RUN)/python -m ruff format .

clean: ## remove the environment and generated files, except out/
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# A broken environment (incomplete, moved, or without its Python) is an error. It is not replaced automatically, because
# the user may have installed packages in it.
environment:
	@if [ -d "$(VENV)" ]; then \
	  "$(RUN)/pip" --version >/dev/null 2>&1 || \
	    { echo "$(VENV) does not work (the folder was moved, or its Python was removed); run 'make clean' and try again" >&2; exit 1; }; \
	  [ "$(origin PYTHON)" = file ] || [ "$$("$(PYTHON)" -c '$(VERSION)')" = "$$("$(RUN)/python" -c '$(VERSION)')" ] || \
	    { echo "$(VENV) was created by another Python than $(PYTHON); run 'make clean', or omit PYTHON" >&2; exit 1; }; \
	else \
	  command -v "$(PYTHON)" >/dev/null || { echo "$(PYTHON) was not found; choose a Python: make PYTHON=python3.12 ..." >&2; exit 1; }; \
	  words=$$("$(PYTHON)" -c 'import sys; print(sys.version.split()[0])' 2>&1) || \
	    { printf '%s\n' "$$words" "$(PYTHON) does not run (see above); choose a Python: make PYTHON=python3.12 ..." >&2; exit 1; }; \
	  "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "$(PYTHON) is Python $$words, and 3.10 or newer is needed; choose a Python: make PYTHON=python3.12 ..." >&2; exit 1; }; \
	  echo "creating the environment $(VENV)"; \
	  "$(PYTHON)" -m venv "$(VENV)" || { rm -rf "$(VENV)"; exit 1; }; \
	fi

$(COMMANDS): pyproject.toml constraints.txt | environment
	@echo "installing the packages for the commands"
	@$(PIP) --quiet --editable '.[plot]'
	@touch $@

$(EVERYTHING): pyproject.toml constraints.txt | environment
	@echo "installing all packages (torch is large; PIP_FLAGS can select an index with its CPU builds)"
	@$(PIP) --editable '.[dev]'
	@touch $(COMMANDS) $@
