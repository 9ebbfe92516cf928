# Needs Python 3.11+, make and the network; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Tests start hundreds of processes: they need not compile the same modules each, and are as users' are.
unexport PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED
NATIVE := $(VENV)/.native
NATIVE_SOURCE := native/Cargo.toml native/pyproject.toml $(wildcard native/src/*.rs)

.PHONY: setup native console demo test test-long test-faults test-spark test-readers lint bench bench-ingest bench-kafka bench-serve bench-state bench-lake soak kafka function-rows lock clean

setup: $(STAMP)    ## a virtual environment with everything in it; the native kernels too where cargo is
	@if command -v cargo > /dev/null; then $(MAKE) -s $(NATIVE); \
	else echo "no cargo: without the native kernels (all works, slower); install Rust and run make native"; fi

native: $(STAMP) $(NATIVE)   ## build the native kernels and install them

$(NATIVE): $(NATIVE_SOURCE) | $(STAMP)
	@rm -rf build/native
	@$(BIN)/maturin build --quiet --release --manifest-path native/Cargo.toml --interpreter $(BIN)/python --out build/native
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-index --reinstall build/native/*.whl
	@touch $@

$(STAMP): requirements/uv.txt requirements/dev.txt requirements/demo.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/uv.txt
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements/dev.txt
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes --no-deps -r requirements/demo.txt
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

console: setup     ## build the console of web/ into the package (needs Node.js 20.19 and npm 11)
	@$(BIN)/python -m tools.console

demo: setup        ## a year of real flights through bronze, silver and gold
	@$(BIN)/lodestream demo

# What takes long comes first, and a third worker fills the time that others wait for servers and clocks.
# A test that hangs or a worker that dies ends the run, with its name.
FIRST := tests/bench tests/stores tests/operations tests/engines tests/console tests/cli tests/apis
PYTEST := $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart=0
test: setup        ## the default tests: minutes on two cores
	@$(PYTEST) -o faulthandler_timeout=300 -o faulthandler_exit_on_timeout=true $(FIRST) tests

test-long: setup   ## crash, power-loss and differential tests in full length
	@$(PYTEST) -m "long or not long" $(FIRST) tests

test-faults: setup ## kills, full and failing disks, many writers and clocks that disagree, in full length
	@$(PYTEST) -m "long or not long" tests/lake tests/runtime tests/cli/test_doctor.py tests/operations/test_chaos.py

test-spark: setup  ## random streams through Spark, the reference semantics and the embedded engine (needs Java)
	@$(BIN)/python -m tools.spark_differential $(STREAMS)

test-readers: setup ## every table that tests leave behind, read by delta-rs, Polars, DuckDB, delta-sharing and Spark (needs Java)
	@$(BIN)/python -m tools.readers

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

kafka: setup       ## an Apache Kafka broker on loopback until Ctrl-C (needs Java and Maven)
	@$(BIN)/python -m lodestream.testing.kafka

bench: setup       ## against PySpark in the same run (needs Java for the peer)
	@$(BIN)/python -m bench.spine

bench-ingest: setup  ## HTTP ingest at 1,000 requests/s, next to a bare fsync loop and plain Starlette
	@$(BIN)/python -m bench.ingest

bench-kafka: setup ## Kafka to gold: drain, burst, latency, and peers in the same run (needs Java and Maven)
	@$(BIN)/python -m bench.kafka

bench-serve: setup ## 10 million gold rows through REST and the PostgreSQL protocol, next to PostgreSQL 15 (needs wrk, postgresql-15)
	@$(BIN)/python -m bench.serve

bench-state: setup ## dedup over 50 million keys (KEYS=), in memory, with a bound and next to PySpark; sessions and a join (EVENTS=)
	@$(BIN)/python -m bench.state $(if $(KEYS),--keys $(KEYS)) $(if $(EVENTS),--events $(EVENTS))

bench-lake: setup  ## commits, opening, bytes and merges of old tables, next to delta-rs
	@$(BIN)/python -m bench.lake

soak: setup        ## a pipeline at RATE=20000 events/s for MINUTES=30: is anything growing? PLOT= renews the picture of the docs
	@$(BIN)/python -m bench.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(RATE),--rate $(RATE)) $(if $(PLOT),--plot $(PLOT))

function-rows: setup  ## regenerate the expected values of every function with Spark (needs Java)
	@$(BIN)/python -m tools.function_rows

lock:              ## renew the pinned requirements
	@for name in base dev schemathesis sharing spark quix bytewax pathway; do $(BIN)/uv pip compile --quiet --generate-hashes --no-header requirements/$$name.in -o requirements/$$name.txt; done
	@$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-deps requirements/demo.in -o requirements/demo.txt

clean:
	@rm -rf $(VENV) .venv-spark .venv-quix .venv-bytewax .venv-pathway .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache demo-lake build native/target
