# Needs python3 (3.11 or later, with venv), make and git; everything else is fetched into .venv.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
OUT ?= results

BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Compiling is most of what the tests do. In float64 it is the mathematics they hold, and code that is
# compiled quickly does; in float32 it is compiled as users have it.
QUICKLY := XLA_FLAGS=--xla_backend_optimization_level=0
NO_BENCHMARK := benchmarks/reference_patients.py benchmarks/reference_forecasts.py benchmarks/radial_brain.py benchmarks/rival_% benchmarks/timing.py \
  benchmarks/learned_reconstruction.py benchmarks/reconstruction_shift.py benchmarks/radial_learned.py \
  benchmarks/learned_acquisition.py benchmarks/acquisition_% benchmarks/lesion_records.py benchmarks/pinn_problems.py \
  %_models.py %_rivals.py
BENCHMARKS := $(filter-out $(NO_BENCHMARK),$(wildcard benchmarks/*.py))
export JAX_COMPILATION_CACHE_DIR := $(CURDIR)/.cache/jax

.PHONY: help setup data demo test long check format bench bench-rivals oracles notebooks reference reference-table wheel lock clean

help: ## list these commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(READY) ## make .venv with the locked versions

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## a virtual patient, from acquisition to forecast, in results/demo
	$(BIN)/mrphys demo --out $(OUT)/demo

test: setup ## every test in float64, then the numerical core in float32
	$(QUICKLY) $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -q
	MRPHYS_TEST_DTYPE=float32 $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -q -m "core and not long" tests

long: setup ## the tests that take minutes, such as the coverage of calibration intervals
	$(BIN)/pytest -q -m long tests

check: setup ## lint, formatting, types, architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/pytest -q tests/test_architecture.py

format: setup ## format the code, mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## every benchmark: speed and accuracy on this machine
	@set -e; for script in $(BENCHMARKS); do echo $$script; $(BIN)/python $$script; done

bench-rivals: ## an environment of its own for the rivals that benchmarks name
	$(PYTHON) -m venv .cache/rivals
	.cache/rivals/bin/pip install --quiet --disable-pip-version-check -r benchmarks/rivals.txt

oracles: setup ## our physics against other people's simulators, those that are there
	$(BIN)/pytest -q -m oracle tests/oracles

notebooks: setup ## run every notebook script at its small size
	@set -e; for script in $(wildcard notebooks/*.py); do \
	  echo $$script; MPLBACKEND=Agg MRPHYS_SMALL=1 $(BIN)/python $$script; done

data: .cache/data/radial_brain.h5 ## a real radial brain, raw: 32 coils, 64 spokes, from PyPI's gpunufft

.cache/data/radial_brain.h5: benchmarks/radial_brain.py | setup
	$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --no-binary gpunufft \
	  --dest .cache/data gpunufft==0.10.8
	$(BIN)/python benchmarks/radial_brain.py .cache/data/gpunufft-0.10.8.tar.gz --out .cache/data

reference: setup ## patient folders from the reference data, when they are there
	$(BIN)/python benchmarks/reference_patients.py

reference-table: setup ## calibrate and forecast the reference data, one table
	$(BIN)/python benchmarks/reference_forecasts.py

wheel: setup ## one wheel with the three packages, in dist/
	$(BIN)/python -m build --wheel --no-isolation

lock: ## resolve the newest versions pyproject.toml allows into requirements.lock
	rm -rf .cache/lock
	$(PYTHON) -m venv .cache/lock
	.cache/lock/bin/pip install --quiet --upgrade pip
	.cache/lock/bin/pip install --quiet --upgrade ".[dev]"
	echo "# Resolved by 'make lock' from pyproject.toml, with the dev extra." > requirements.lock
	.cache/lock/bin/pip freeze --all --exclude pip --exclude mrphys >> requirements.lock
	rm -rf .cache/lock

clean: ## remove what was built, downloaded or cached here; results stay
	rm -rf $(VENV) .cache build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
