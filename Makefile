# The two commands of the README, and the parts of the second one.

.PHONY: demo test servers lint unit senders

# Builds and plays the main job on the embedded default: no broker, no database.
demo:
	cargo run --quiet --locked -p wxpayctl -- demo

# Everything that CI runs.
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
