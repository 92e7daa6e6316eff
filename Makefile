# Two commands do everything on a fresh machine: `make demo` and `make test`. They need Python 3.11 or newer and make.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
export DAGSTER_HOME := $(CURDIR)
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: demo livelihood aerial test lint types bench campaign replicate planted ui requirements clean

demo: $(READY)  ## run the embedded simulated city from statistics to map and report
	$(BIN)/urbanprint demo

livelihood: $(READY)  ## all learners on the simulated countries, and the full table (about an hour on two cores)
	$(BIN)/urbanprint run simland-a simland-b simland-a-single

aerial: $(READY)  ## conurbations from above: two whose pictures tell income and one whose do not (20 minutes)
	$(BIN)/urbanprint run skyton-a skyton-b skyton-none

# One thread each: two workers share the cores, and threads that wait for each other burn them. A file is one worker's, so
# that what it sets up is set up once; the long ones come first, in the order of their names.
test: $(READY)  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(TESTS)

lint: $(READY)  ## style, import rules, formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

bench: $(READY)  ## figures, each beside what it is compared with, in one run
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.acquisition
	$(BIN)/python -m benchmarks.graph_layers
	$(BIN)/python -m benchmarks.feature_extraction
	$(BIN)/python -m benchmarks.cluster_features
	$(BIN)/python -m benchmarks.world_grid
	$(BIN)/python -m benchmarks.geolocation_designs
	$(BIN)/python -m benchmarks.attention

campaign: $(READY)  ## 14 kinds of fault over 2,500 images: nothing lost, nothing fetched twice (5 minutes)
	$(BIN)/python -m benchmarks.campaign

replicate: $(READY)  ## the demo's claims on towns it was not tuned on (10 minutes)
	OMP_NUM_THREADS=2 $(BIN)/python -m benchmarks.other_towns

planted: $(READY)  ## a planted cue, and none, in 100 simulated conurbations (an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.planted_cues

ui: $(READY)  ## the Dagster and MLflow web pages, on this machine only
	$(BIN)/urbanprint ui

# Packages are byte-compiled once here: some machines forbid Python to do it later, and then every start costs seconds.
$(READY): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "urbanprint needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes --requirement requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

requirements: $(READY)  ## resolve pyproject.toml again into pinned names, versions and hashes
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --group dev pyproject.toml --output-file requirements.txt

clean:  ## remove everything runs have made, but not the packages
	rm -rf data .dagster
