# Set-up and checks. `make help` lists what there is.

PYTHON ?= python3
VENV ?= .venv
# More options for pip, for example --extra-index-url for an index with CPU builds of torch, which training needs.
PIP_FLAGS ?=
# More arguments for the program that a target runs: make test ARGS="-k search"
ARGS ?=
# For train-cifar: a folder with CIFAR-10 as train-*.parquet and test-*.parquet (columns `img`, `label`), and how many
# processes train. Other numbers of processes give other weights.
CIFAR ?= cifar10
PROCESSES ?= 2

RUN := $(VENV)/bin
PIP := $(RUN)/python -m pip install --disable-pip-version-check --use-pep517 --constraint constraints.txt $(PIP_FLAGS)
VERSION := import sys; print(sys.version_info[:2])
# Stamps: what the environment holds. The first is all that profiling, verifying, searching and exporting need; the
# second adds what training (torch) and development need.
COMMANDS := $(VENV)/.holds-commands
EVERYTHING := $(VENV)/.holds-everything

.PHONY: help quickstart train-cifar test slow-test install lint format clean environment
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

quickstart: $(COMMANDS) ## profile this machine, check the table, search, export: writes out/quickstart/
	@$(RUN)/python examples/quickstart.py $(ARGS)

OFA_TRAIN := OMP_NUM_THREADS=1 $(RUN)/python -m torch.distributed.run --standalone --nproc-per-node $(PROCESSES) \
  -m ofa_search.train_cli
ON_CIFAR := --data $(CIFAR) --test-data $(CIFAR) --device cpu --threads 1

train-cifar: $(EVERYTHING) ## train what comes with the package for cifar-mbv3, on two CPU cores: writes out/cifar/
	$(OFA_TRAIN) supernet $(ON_CIFAR) --out out/cifar/supernet --carry table \
	  --schedule cifar-cpu --optimizer sgd --learning-rate 0.08 --weight-decay 5e-4
	$(OFA_TRAIN) predictor $(ON_CIFAR) --out out/cifar/predictor --samples 700 \
	  --supernet out/cifar/supernet/supernet.safetensors

test: $(EVERYTHING) ## run the tests, in two processes
	$(RUN)/python -m pytest -n 2 --dist loadfile $(ARGS)

slow-test: $(EVERYTHING) ## run the tests that take minutes, in two processes
	$(RUN)/python -m pytest -m slow -n 2 --dist loadfile $(ARGS)

install: $(EVERYTHING) ## make the environment .venv with everything in it

lint: $(EVERYTHING) ## check style and types
	$(RUN)/python -m ruff check .
	$(RUN)/python -m ruff format --check .
	$(RUN)/python -m mypy

format: $(EVERYTHING) ## fix what can be fixed of style
	$(RUN)/python -m ruff check --fix .
	$(RUN)/python -m ruff format .

clean: ## remove the environment and everything that can be made again, but not out/
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# An environment left half-made, moved with its folder, or made by a Python that has gone is not repaired
# silently: it may hold things that somebody installed.
environment:
	@if [ -d "$(VENV)" ]; then \
	  "$(RUN)/pip" --version >/dev/null 2>&1 || \
	    { echo "$(VENV) does not work any more (was it moved, or its Python removed?): run 'make clean' and try again" >&2; exit 1; }; \
	  [ "$(origin PYTHON)" = file ] || [ "$$("$(PYTHON)" -c '$(VERSION)')" = "$$("$(RUN)/python" -c '$(VERSION)')" ] || \
	    { echo "$(VENV) was made with another Python than $(PYTHON): run 'make clean', or leave PYTHON out" >&2; exit 1; }; \
	else \
	  command -v "$(PYTHON)" >/dev/null || { echo "there is no $(PYTHON); name one: make PYTHON=python3.12 ..." >&2; exit 1; }; \
	  "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "$(PYTHON) is not Python 3.10 or newer; name one: make PYTHON=python3.12 ..." >&2; exit 1; }; \
	  echo "making the environment $(VENV)"; \
	  "$(PYTHON)" -m venv "$(VENV)" || { rm -rf "$(VENV)"; exit 1; }; \
	fi

$(COMMANDS): pyproject.toml constraints.txt | environment
	@echo "installing what the commands need"
	@$(PIP) --quiet --editable '.[plot]'
	@touch $@

$(EVERYTHING): pyproject.toml constraints.txt | environment
	@echo "installing everything (torch is large; PIP_FLAGS can name an index with its CPU builds)"
	@$(PIP) --editable '.[dev]'
	@touch $(COMMANDS) $@
