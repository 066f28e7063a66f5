# Two commands on a fresh machine: `make results` and `make test`. Both make .venv from the lock.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
CORES ?= 8
# One OpenMP thread a process: tests run side by side, and two threads beside a busy neighbour are many times slower.
export OMP_NUM_THREADS := 1
export PATH := $(BIN):$(PATH)

.PHONY: results test lint benchmarks lock clean
.DEFAULT_GOAL := results

results: .venv/installed
	snakemake --cores $(CORES) all
	@cat results/tables.md

test: .venv/installed
	pytest -n auto --dist worksteal

lint: .venv/installed
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	mypy
	snakemake --lint

benchmarks: .venv/installed
	python benchmarks/steps.py

.venv/installed: requirements.lock pyproject.toml
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --requirement requirements.lock
	.venv/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

# The versions we test with, from a fresh environment that meets pyproject.toml. torch is held at a release whose
# CPU results we have compared.
lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet torch==2.13.0 --editable '.[dev]'
	{ echo '# Made by `make lock`.'; \
	  .venv-lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf .venv .snakemake logs checkpoints
