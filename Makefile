# Everything needs nothing but Python 3.11 or newer: the first call makes .venv and installs the pinned requirements.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_VENV ?= .venv-bench
BENCH := $(BENCH_VENV)/bin
BENCH_READY := $(BENCH_VENV)/.ready
MINUTES ?= 60
RUNS ?= 4
BATCHES ?= 40

.PHONY: help demo test test-full check format generate changelog requirements bench bench-gpu plots capture pictures stack stack-down clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 16

demo: $(READY) ## Grow a small network on handwritten digits and look at its telemetry
	@$(BIN)/nissa demo

# A file stays in one worker: a document's examples go on from one another, and fixtures of a module are set up once.
# The order is that of conftest.py, long files first. There are more workers than the two cores of CI, since many tests wait
# for other processes. Processes write and read bytecode, whatever the caller's shell says:
# without it each one compiles torch for several seconds.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

test: $(READY) ## Run the tests; those against real servers build them once, where there is Go or Docker
	@$(BIN)/python -m scripts.stack --optional build
	@$(BIN)/python -m scripts.browser --optional
	$(PYTEST) -m "not full" $(ARGS)

test-full: $(READY) ## Run all tests, those that take minutes too
	@$(BIN)/python -m scripts.stack --optional build
	@$(BIN)/python -m scripts.browser --optional
	$(PYTEST) --hypothesis-profile thorough --timeout 1800 $(ARGS)

check: $(READY) ## Format, lint, types, import contract, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m scripts.generate --check
	$(BIN)/python -m scripts.changelog --check
	$(BIN)/python -m scripts.stack validate

format: $(READY) ## Format, and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

generate: $(READY) ## Write the generated files
	$(BIN)/python -m scripts.generate

changelog: $(READY) ## Move the fragments of changelog.d/ to the section of the next version in CHANGELOG.md
	$(BIN)/python -m scripts.changelog

stack: $(READY) ## Start collector, Prometheus and Jaeger (and Grafana, with Docker), and print where they are
	@$(BIN)/python -m scripts.stack up

stack-down: $(READY) ## End them
	@$(BIN)/python -m scripts.stack down

pictures: $(READY) ## Draw the boards from what the real servers answer after the demo
	$(BIN)/python -m scripts.pictures

capture: $(READY) ## Run the demo and keep pictures of it and of its report for the README
	$(BIN)/python -m scripts.capture docs/images/demo.svg
	@$(BIN)/python -m scripts.browser
	$(BIN)/python -m scripts.capture_report docs/images

bench: $(BENCH_READY) ## Measure what watching costs; 70 minutes, on a machine that does nothing else
	$(BENCH)/python -m benchmarks.startup --runs $(RUNS)
	$(BENCH)/python -m benchmarks.growth
	$(BENCH)/python -m benchmarks.events
	$(BENCH)/python -m benchmarks.event_rate
	$(BENCH)/python -m benchmarks.export
	$(BIN)/python -m benchmarks.outages
	$(BENCH)/python -m benchmarks.kernels
	$(BENCH)/python -m benchmarks.replicas
	$(BENCH)/python -m benchmarks.steps.short
	$(BENCH)/python -m benchmarks.steps.within
	$(BENCH)/python -m benchmarks.steps --minutes $(MINUTES)
	$(BENCH)/python -m benchmarks.plots
	$(BIN)/python -m scripts.generate

bench-gpu: ## The same on a GPU, after the tests that need one; PYTHON is one that has the project and torch for CUDA
	$(PYTHON) -m pytest -q tests/gpu
	$(PYTHON) -m benchmarks.kernels --device cuda
	$(PYTHON) -m benchmarks.growth --device cuda --into benchmarks/results/cuda
	$(PYTHON) -m benchmarks.steps.within --device cuda --batches $(BATCHES) --windows 2 --model gpt --into benchmarks/results/cuda
	$(PYTHON) -m benchmarks.steps --device cuda --batches $(BATCHES) --minutes 4 --into benchmarks/results/cuda

plots: $(BENCH_READY) ## Draw the benchmark's results
	$(BENCH)/python -m benchmarks.plots

requirements: $(READY) ## Pin the newest versions that fit
	$(BIN)/uv pip compile --quiet --no-emit-index-url --no-header --upgrade --group dev pyproject.toml --extra demo -o requirements/dev.txt
	$(BIN)/uv pip compile --quiet --no-emit-index-url --no-header --upgrade --override requirements/bench-overrides.in --constraint requirements/dev.txt requirements/bench.in pyproject.toml -o requirements/bench.txt

clean: ## Remove the virtual environment and what runs left behind
	rm -rf $(VENV) $(BENCH_VENV) nissa-runs .pytest_cache .mypy_cache .ruff_cache

$(READY): requirements/dev.txt pyproject.toml setup.py $(wildcard src/nissa/kernels/native/*)
	@$(PYTHON) -c 'import sys; sys.exit("Nissa needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Call make PYTHON=python3.12, for example.") if sys.version_info < (3, 11) else None'
	@echo "Setting up $(VENV) (once; torch is large) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

# What is compared may ask for an older torch than ours: everything is pinned, and installed as pinned.
$(BENCH_READY): $(READY) requirements/bench.txt
	@echo "Setting up $(BENCH_VENV) ..."
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(BENCH_VENV)
	@$(BIN)/uv pip sync --quiet --python $(BENCH)/python requirements/bench.txt
	@$(BIN)/uv pip install --quiet --python $(BENCH)/python --no-deps -e .
	@touch $@
