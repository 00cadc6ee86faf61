# The two commands of the README, and the parts of the second one.

.PHONY: demo test servers lint unit senders soak scale

# Builds and plays the main job on the embedded default: no broker, no database.
demo:
	@echo "building: some minutes the first time"
	cargo run --quiet --locked -p wxpayctl -- demo

# What CI runs, with `demo`.
test: servers lint unit

# The servers that the tests start privately, and the browser.
servers:
	./scripts/install-test-servers.sh

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked

unit:
	cargo build --workspace --bins --locked
	cargo test --workspace --locked

# Independent implementations as the sender. Not in `test`: it needs PyPI's and npm's packages.
senders:
	./tests/senders/run.sh

# Faults at random for as long as one likes, then the audit; the table is written to target/soak.md. A seed is a schedule.
MINUTES ?= 30
SEED ?= 1
STORE ?= postgres
soak:
	cargo run --release --locked -p wxpay-tests -- --minutes $(MINUTES) --seed $(SEED) --store $(STORE)

# The same notifications through 1, 2 and 4 workers that are killed at random, in each store: the same tables.
NOTIFICATIONS ?= 100000
scale:
	cargo run --release --locked -p wxpay-tests -- --scale $(NOTIFICATIONS) --seed $(SEED) --output target/scale.md
