# `make` or `make help` says what can be done. Every target sets up what it needs, from the lock file, and once.
# Needs Python 3.10 to 3.13 and make; PYTHON=... names another interpreter than the one found, ARGS=... is passed on.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

UV_VERSION := 0.13.9
VENV := .venv/bin
UV := UV_PYTHON_DOWNLOADS=never .venv-tools/bin/uv
ARGS ?=
export PYTHON

# Made on success, so that a set-up that was interrupted is done again.
READY := .venv/.ready

.PHONY: help
help: ## list the targets
	@echo "airflow-incremental: make TARGET [ARGS=...] [PYTHON=...]"
	@sed -nE 's/^([a-z][a-z-]*):.*## (.*)/  \1\t\2/p' Makefile | expand -t 16

.PHONY: setup
setup: $(READY) ## make .venv with exactly what requirements.lock names (every target does it when needed)

$(READY): requirements.lock pyproject.toml scripts/setup.sh Makefile
	@echo "Setting up .venv from requirements.lock ..."
	@scripts/setup.sh $(UV_VERSION)
	@touch $@

# What tests, demo and benchmark of Spark need besides: a Python with Spark, and jars that Maven fetches (its settings name a
# mirror, where there is one).
READY_SPARK := .venv-spark/.ready
SPARK_JARS := build/spark-jars/.ready

.PHONY: setup-spark
setup-spark: $(READY_SPARK) $(SPARK_JARS) ## make .venv-spark and build/spark-jars, which the ...-spark targets need (Java 17 and Maven have to be there)

$(READY_SPARK): tests/spark/requirements.lock scripts/setup-spark.sh | $(READY)
	@echo "Setting up .venv-spark from tests/spark/requirements.lock ..."
	@scripts/setup-spark.sh
	@touch $@

$(SPARK_JARS): tests/spark/pom.xml | $(READY_SPARK)
	@echo "Fetching the jars that tests/spark/pom.xml names ..."
	@rm -rf build/spark-jars
	@mvn --batch-mode --quiet --file $< dependency:copy-dependencies@rest-catalog dependency:copy@spark
	@touch $@

.PHONY: demo
demo: $(READY) ## late flights in real Airflow: runs by itself, ends by itself, writes build/demo/report.json
	$(VENV)/python -m demo $(ARGS)

.PHONY: demo-spark
demo-spark: $(READY) $(READY_SPARK) $(SPARK_JARS) ## the demo with its fact and an aggregate on Spark: a bad delivery, a killed driver, build/demo-spark/report.json
	$(VENV)/python -m demo --spark $(ARGS)

.PHONY: airflow
airflow: $(READY) ## the demo's Airflow with its UI left running on loopback, until Ctrl-C
	$(VENV)/python -m demo --serve $(ARGS)

.PHONY: test
test: $(READY) ## the tests, as CI runs them (ARGS="-k late -x"), by three processes side by side, which wait a lot
	$(VENV)/python -m pytest --numprocesses 3 --dist loadscope --no-loadscope-reorder $(ARGS)

.PHONY: test-long
test-long: $(READY) ## the tests with thousands of random histories
	HYPOTHESIS_PROFILE=long $(VENV)/python -m pytest --numprocesses 3 --dist loadscope --no-loadscope-reorder $(ARGS)

.PHONY: test-spark
test-spark: $(READY) $(READY_SPARK) $(SPARK_JARS) ## the tests with a real Spark, a REST catalog and PostgreSQL
	.venv-spark/bin/python -m pytest --confcutdir tests/spark/driver tests/spark/driver
	$(VENV)/python -m pytest -m spark tests/spark $(ARGS)

.PHONY: lint
lint: $(READY) ## ruff (all rules), formatting, import contracts
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/lint-imports

.PHONY: format
format: $(READY) ## put the code into the form that lint asks for, as far as a tool can
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format .

.PHONY: typecheck
typecheck: $(READY) ## mypy, strict
	$(VENV)/mypy $(wildcard airflow_incremental airflow_incremental_spark demo benchmarks)

.PHONY: bench
bench: $(READY) ## benchmarks: tables to the terminal, build/bench/*.json and *.csv
	$(VENV)/python -m benchmarks $(ARGS)

.PHONY: bench-spark
bench-spark: $(READY) $(READY_SPARK) $(SPARK_JARS) ## the benchmark of DuckDB against Spark: 1, 10 and 50 million rows, about an hour
	$(VENV)/python -m benchmarks spark $(ARGS)

.PHONY: docs-expectations
docs-expectations: $(READY) ## write docs/expectations.md anew, from the code that it speaks of
	$(VENV)/python -m airflow_incremental.audits.expectations.supported > docs/expectations.md

.PHONY: docs-store
docs-store: $(READY) ## write docs/store.md anew, from the tables that it speaks of
	$(VENV)/python -m airflow_incremental.store.documented > docs/store.md

.PHONY: wheel
wheel: $(READY) ## build the wheel into dist/
	$(VENV)/hatchling build -t wheel

.PHONY: test-wheel
test-wheel: $(READY) ## install the wheel beside the oldest and the newest Airflow, and parse the example DAGs there
	$(VENV)/python -m pytest -m packaging tests/packaging $(ARGS)

# Universal: one file for every Python and platform, without the address of the index that it was made with.
COMPILE := pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	--python-version 3.10 --custom-compile-command "make lock"

.PHONY: lock
lock: $(READY) ## write the lock files anew: the newest of everything that pyproject.toml allows
	$(UV) $(COMPILE) pyproject.toml --extra sensitive --group dev --output-file requirements.lock
	$(UV) $(COMPILE) pyproject.toml tests/packaging/oldest.in --output-file tests/packaging/oldest.lock
	$(UV) $(COMPILE) tests/spark/requirements.in --output-file tests/spark/requirements.lock

.PHONY: clean
clean: ## remove everything that make has made
	rm -rf .venv .venv-spark .venv-tools build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
