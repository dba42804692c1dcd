# Each target is one line to the thing that does it.
.PHONY: run test lint fix
test:
	cargo test --profile quick --workspace --exclude leveret-e2e
lint:
	cargo fmt --all --check && cargo clippy --profile quick --workspace --exclude leveret-e2e --all-targets -- -D warnings
fix:
	cargo clippy --profile quick --workspace --all-targets --fix --allow-dirty --allow-staged && cargo fmt --all
