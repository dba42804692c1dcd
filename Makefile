# Each target is one line to the thing that does it.
.PHONY: run test lint fix
test:
	./e2e/test
lint:
	cargo fmt --all --check && cargo clippy --profile quick --workspace --all-targets -- -D warnings
fix:
	cargo clippy --profile quick --workspace --all-targets --fix --allow-dirty --allow-staged && cargo fmt --all
