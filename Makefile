# `make quickstart`: from a clone to a trained agent. `make test`: every check.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test lint types test-fast test-slow test-learning test-docker image bench check-gpu bench-scale

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(STAMP): pyproject.toml constraints.txt
	@echo "making $(VENV) with everything that is pinned in constraints.txt: it takes minutes, and 3 GB of disk"
	@echo "with PyTorch's CPU wheel, more with CUDA's; what pip does follows"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev,optuna,cluster]'
	@touch $@

setup: $(STAMP) ## make .venv with the pinned versions

quickstart: $(STAMP) ## train two model sizes on finger-spin and draw the scaling curve
	@echo "training two model sizes on finger-spin: about 7 minutes on two idle cores"
	$(BIN)/tdmpc-ray tune experiments/quickstart.yaml

test: lint types test-fast ## lint, formatting, types, layer test and all tests

lint: $(STAMP) ## ruff: lint and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy
	$(BIN)/mypy

test-fast: $(STAMP)
	$(BIN)/pytest -m 'not slow and not learning and not docker'

test-slow: $(STAMP) ## outages, soak runs, sweeps over every task (not in CI)
	$(BIN)/pytest -m slow

bench: $(STAMP) ## plan and update in milliseconds, beside a straightforward implementation
	$(BIN)/python tests/bench/bench_core.py $(BENCH_ARGS)

bench-scale: $(STAMP) ## env steps per second with 1 to 32 runners, the loop beside a bare one, a learner beside runners
	$(BIN)/python tests/bench/bench_scale.py $(BENCH_ARGS)
	$(BIN)/python tests/bench/bench_loop.py
	$(BIN)/python tests/bench/bench_learner.py

check-gpu: $(STAMP) ## everything that only a GPU can tell, in nine minutes; writes docs/benchmarks_gpu.md
	$(BIN)/python tests/gpu/check.py $(CHECK_ARGS)

test-learning: $(STAMP) ## learning runs of minutes to hours (not in CI)
	$(BIN)/pytest -m learning

TAG ?= cpu
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
image: ## the container image; for GPUs: TAG=cuda TORCH_INDEX=https://download.pytorch.org/whl/cu130
	docker build --file docker/Dockerfile --tag tdmpc-ray:$(TAG) --build-arg TORCH_INDEX=$(TORCH_INDEX) \
		--build-arg VERSION=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' tdmpc_ray/__init__.py) .

# A study there takes longer than the tests after which a stack of calls is printed.
test-docker: $(STAMP) ## the image and the compose stack, built and run; needs a Docker engine with compose
	$(BIN)/pytest -m docker -s -o faulthandler_timeout=0
