# One word each. `demo` and `test` start a private Docker Engine unless DOCKER_HOST names one; that needs root.

.PHONY: help demo test test-engines torture interop fuzz lint openapi order bench engine image clean

help:
	@echo "make demo          provision, update and tear down a tenant of three services, step by step"
	@echo "make test          formatting, lints, all tests on a real engine"
	@echo "make test-engines  the tests that need an engine, on the distribution's and on a newer one that is fetched"
	@echo "make torture       killed at every crash point and 300 times at random, every engine call broken, twenty minutes of churn"
	@echo "make interop       the real docker compose, which is fetched, on what the agent has made"
	@echo "make fuzz          ten minutes of made-up input for every reader of input, two at a time (SECONDS=60: one minute)"
	@echo "make lint          formatting, lints, and dependencies if cargo-deny is there"
	@echo "make openapi       write the description of the API anew, after a type or a route has changed"
	@echo "make order         write the order of functions in the release binary anew (scripts/order.sh)"
	@echo "make bench         the benchmarks"
	@echo "make engine        start a private engine and say how to use it (scripts/engine.sh stop ends it)"
	@echo "make image         the container image, with the docker client"
	@echo "make clean         what was built, and the private engine"

demo:
	@scripts/demo.sh

# Most tests wait for an engine most of the time: three times as many at once as a machine of two cores would run.
test: format clippy
	RUST_TEST_THREADS=6 scripts/with-engine.sh cargo test --locked --features crash-points

test-engines:
	scripts/test-engines.sh --test harness --test backend_conformance --test e2e --test e2e_faults --test templates --test stacks --test image --test escapes --test compose_cli

# Of all this `make test` runs a short form. The whole takes two hours; MINUTES is the length of the churn.
MINUTES = 20
torture:
	Q8_TORTURE=1 Q8_TORTURE_MINUTES=$(MINUTES) scripts/with-engine.sh \
		cargo test --locked --features crash-points --test torture -- --test-threads=2 --nocapture

# In no other run: it needs the docker compose that the script fetches.
interop:
	scripts/test-engines.sh --test compose_cli

# Every run begins somewhere else; FIRST=… with the number that a finding was told with begins there.
SECONDS = 600
FIRST = $(shell date +%s)000000
fuzz:
	Q8_FUZZ_SECONDS=$(SECONDS) Q8_FUZZ_SEED=$(FIRST) cargo test --locked --lib fuzz_ -- --test-threads=2 --nocapture

openapi:
	Q8_UPDATE_OPENAPI=1 cargo test --locked --lib openapi

order:
	scripts/order.sh

# The agent as it is shipped: what `cargo bench` builds for itself has more features of its crates, and its functions in another
# order.
bench:
	cargo build --locked --release
	install -D "$$(ls target/*/release/q8-agent)" target/shipped/q8-agent
	Q8_AGENT_BINARY=$(CURDIR)/target/shipped/q8-agent scripts/with-engine.sh cargo bench --locked

lint: format clippy clippy-variants
	@if command -v cargo-deny >/dev/null; then scripts/deny.sh; else echo "cargo-deny is not installed: dependencies are not checked"; fi

.PHONY: format clippy
format:
	cargo fmt --all --check
clippy:
	cargo clippy --locked --all-targets --features crash-points -- -D warnings

# The same of what `clippy` leaves out: as it is installed, and without Azure.
.PHONY: clippy-variants
clippy-variants:
	cargo clippy --locked --lib --bins --test compose_cli -- -D warnings
	cargo clippy --locked --lib --bins --no-default-features -- -D warnings

engine:
	@scripts/engine.sh start

image:
	docker build -t q8-agent .

clean:
	scripts/engine.sh stop
	cargo clean
