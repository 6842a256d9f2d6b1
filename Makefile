PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Tests run in so many processes, each with a broker and a database of its own; a file's tests stay together.
TEST_PROCESSES ?= 2
SEEDS ?= 200

.PHONY: install demo test fuzz faults simulate lint bench bench-peers pressure docs up clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml deploy/local/kafka/pom.xml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	$(BIN)/python -m deploy.local.fetch
	touch $@

demo: install
	$(BIN)/python -m examples.flights $(ARGS)

test: install lint
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

# Every attack on bad input for so many seconds, by seeds of its own: half an hour and a bit with the default.
SECONDS ?= 120
SEED ?= $(shell date +%s)
fuzz: install
	$(BIN)/python -m tests.fuzz $(SECONDS) $(SEED)

# Real faults on three brokers, PostgreSQL and two of every service; exits with 1 when a promise is broken.
ROUNDS ?= 17
faults: install
	$(BIN)/python -m tests.faults --rounds $(ROUNDS) --seed $(SEED) $(ARGS)

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy

# The generated references, then the site: site/html/index.html, to be read without a network.
docs: install
	$(BIN)/python -m deploy.docs
	$(BIN)/sphinx-build -M html docs site --quiet --fail-on-warning --keep-going --fresh-env

# The services without the demo: broker, PostgreSQL and all four, until Ctrl-C.
up: install
	$(BIN)/trueward up $(ARGS)

# Simulated worlds with faults: SEEDS=5000 is a campaign, SEEDS=17-17 one world again. docs/guarantees.md
simulate: install
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

# Every figure of docs/performance.md, in under 45 minutes: ONLY=name measures one, QUICK=1 all on little data.
bench: install
	$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY)) $(if $(QUICK),--quick) $(ARGS)

# What `make bench` compares with, each in a virtual environment of its own; Flink's connector comes from Maven.
PEERS := $(patsubst %/requirements.lock,%,$(wildcard benchmarks/peers/*/requirements.lock)) benchmarks/tools

bench-peers: $(PEERS:%=%/.venv/.installed) benchmarks/peers/flink/target/jars

benchmarks/%/.venv/.installed: benchmarks/%/requirements.lock
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@

benchmarks/peers/flink/target/jars: benchmarks/peers/flink/pom.xml
	mvn -q -B -f $< dependency:copy-dependencies
	touch $@

# How much memory the metrics service takes to drain a million records.
pressure: install
	$(BIN)/python -m benchmarks.pressure $(ARGS)

# What was installed, fetched and kept by runs; not what is in version control.
clean:
	rm -rf $(VENV) .data site deploy/local/kafka/target benchmarks/peers/*/.venv benchmarks/peers/flink/target \
		benchmarks/tools/.venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
