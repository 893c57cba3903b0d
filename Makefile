# Five words; CI uses the same.
.PHONY: setup run test check bench

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell sed -n "s/^uv==\([^ ]*\).*/uv==\1/p" requirements.lock)

setup: $(VENV)/.ready

# uv installs what requirements.lock pins, by hash; the second line records Kafka's class cache, so that later starts are quick.
$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sluice needs Python 3.11 or newer; say which with make PYTHON=…")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV)
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --require-hashes -r requirements.lock
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m infra.embedded.prepare
	@touch $@

run: setup
	@$(BIN)/sluice up --quickstart

# At once: those that start real parts mostly wait, and leave room for the others.
test: setup
	@$(MAKE) --no-print-directory -j4 --output-sync=target test-faults test-integration-a-k test-integration-l-z test-fast

.PHONY: test-faults test-integration test-integration-a-k test-integration-l-z test-fast
test-faults: setup
	@$(BIN)/pytest -p no:cacheprovider tests/faults

test-integration: test-integration-a-k test-integration-l-z

# Two halves that take about as long.
test-integration-a-k test-integration-l-z: test-integration-%: setup
	@$(BIN)/pytest -p no:cacheprovider tests/integration/test_[$*]*.py

# Beside the others it takes what they leave: nothing in it waits for anybody.
test-fast: setup
	@nice -n 10 $(BIN)/pytest -p no:cacheprovider tests --ignore=tests/faults --ignore=tests/integration

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/basedpyright

bench: setup
	@$(BIN)/python -m benchmarks.bench

# After a change of the dependencies in pyproject.toml.
.PHONY: lock
lock:
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --group dev pyproject.toml -o requirements.lock

# Alert rules by Prometheus' own tool, which Debian has in its package `prometheus`; CI checks names and labels only.
PROMTOOL ?= promtool
.PHONY: rules
rules:
	@$(PROMTOOL) check rules infra/deploy/prometheus/recording.yaml infra/deploy/prometheus/alerts.yaml
	@$(PROMTOOL) test rules infra/deploy/prometheus/alerts_test.yaml
