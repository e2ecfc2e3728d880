# Everything a newcomer needs: `make demo` shows the product, `make test` runs all tests.
# One cargo profile (release) serves all targets, because each further one would compile llama.cpp again.

CARGO ?= cargo
# As `holdfast serve` sets it for itself: the engine's threads sleep early instead of spinning.
export GOMP_SPINCOUNT ?= 1000
BIN := target/release/holdfast
EMULATORS := target/release/holdfast-emulators
MODELS_DIR ?= $(if $(HOLDFAST_MODELS_DIR),$(HOLDFAST_MODELS_DIR),target/models)
MODEL := $(MODELS_DIR)/smollm2-135m-instruct/model.gguf
VENV := target/venv
OLDER_VENV := target/venv-older
BENCH_VENV := target/venv-bench
NGINX := target/nginx
# How long `make fuzz` runs each target.
export FUZZ_SECONDS ?= 120
# How often `make chaos` kills a replica.
export CHAOS_KILLS ?= 20
# How long `make soak` runs; fractions are fine.
HOURS ?= 1

.PHONY: build demo test test-rust test-clients lint bench chaos soak fuzz setup-build setup-test setup-bench clean

setup-build:
	@scripts/setup.sh build

setup-test:
	@scripts/setup.sh test

setup-bench:
	@scripts/setup.sh bench $(NGINX)

## build: target/release/holdfast
build: setup-build
	$(CARGO) build --release --locked -p holdfast-gateway

## demo: the main job on a real model and a real text
demo: setup-build
	$(CARGO) build --release --locked -p holdfast-gateway --bins --example demo
	HOLDFAST_MODELS_DIR=$(abspath $(MODELS_DIR)) target/release/examples/demo

$(MODEL): build
	@test -e $@ || HOLDFAST_MODELS_DIR=$(abspath $(MODELS_DIR)) $(BIN) models pull default

## test: every test, the real engine's and the real clients' included
test: test-rust test-clients

test-rust: setup-test $(MODEL)
	HOLDFAST_TEST_MODEL=$(abspath $(MODEL)) HOLDFAST_BIN=$(abspath $(BIN)) \
		$(CARGO) test --release --locked --workspace --features holdfast-engine/llama

$(VENV)/ready: tests/clients/requirements.txt tests/clients/package-lock.json | setup-test
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install -q -r tests/clients/requirements.txt
	cd tests/clients && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error
	touch $@

$(OLDER_VENV)/ready: tests/clients/requirements-older.txt | setup-test
	python3 -m venv $(OLDER_VENV)
	$(OLDER_VENV)/bin/pip install -q -r tests/clients/requirements-older.txt
	touch $@

# The two tests of SDKs that have changed much run once more with earlier versions of them.
test-clients: setup-test $(MODEL) $(VENV)/ready $(OLDER_VENV)/ready
	$(CARGO) build --release --locked -p holdfast-emulators
	export HOLDFAST_MODELS_DIR=$(abspath $(MODELS_DIR)) HOLDFAST_BIN=$(abspath $(BIN)) \
		HOLDFAST_EMULATORS=$(abspath $(EMULATORS)) && \
	$(VENV)/bin/python -m pytest tests/clients -q && \
	$(OLDER_VENV)/bin/python -m pytest tests/clients/test_google_genai.py tests/clients/test_anthropic_python.py -q

## lint: formatting, clippy with warnings denied, licences and advisories
lint: setup-build
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) clippy --release --locked --workspace --all-targets --features holdfast-engine/llama -- -D warnings
	python3 scripts/check_dependencies.py

## bench: what docs/benchmarks.md quotes
bench: setup-bench $(MODEL)
	$(CARGO) build --release --locked -p holdfast-benches -p holdfast-gateway --bins
	test -e $(BENCH_VENV)/ready || { python3 -m venv $(BENCH_VENV) && \
		$(BENCH_VENV)/bin/pip install -q -r benches/requirements.txt && touch $(BENCH_VENV)/ready; }
	for bench in engine clients http upstreams store; do \
		HOLDFAST_TEST_MODEL=$(abspath $(MODEL)) HOLDFAST_MODELS_DIR=$(abspath $(MODELS_DIR)) \
		HOLDFAST_BIN=$(abspath $(BIN)) BENCH_PYTHON=$(abspath $(BENCH_VENV))/bin/python \
		PATH="$$PATH:$(abspath $(NGINX))/usr/sbin" target/release/$$bench || exit 1; \
	done

## chaos: faults of disk, database, upstream and replicas only; CHAOS_KILLS asks for more kills than `make test` does
chaos: setup-test
	$(CARGO) test --release --locked --workspace --features holdfast-engine/llama --test it -- chaos

## soak: HOURS of mixed load; fails if memory, descriptors or latency grow, or the ledger misses a request
soak: $(MODEL)
	$(CARGO) build --release --locked -p holdfast-emulators
	HOLDFAST_TEST_MODEL=$(abspath $(MODEL)) HOLDFAST_BIN=$(abspath $(BIN)) HOLDFAST_EMULATORS=$(abspath $(EMULATORS)) \
		python3 benches/soak --hours $(HOURS)

## fuzz: every decoder with bytes that nobody wrote, for FUZZ_SECONDS each
fuzz: setup-build
	scripts/fuzz.sh

clean:
	$(CARGO) clean
	$(CARGO) clean --manifest-path fuzz/Cargo.toml
