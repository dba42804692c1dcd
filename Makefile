# Each target is one line to the thing that does it.
.PHONY: run test test-cluster sim mutants images up down lint fix
run:
	./e2e/run
test:
	./e2e/test
test-cluster:
	./e2e/test-cluster
sim:
	LEVERET_SIM_SEEDS=$(SEEDS) cargo test --profile quick -p leveret-sim --test one_node --test cluster -- --nocapture promises_hold
mutants:
	cargo test --profile quick -p leveret-sim --test mutants --test cluster_mutants -- --nocapture --include-ignored
images:
	./e2e/cluster/push-images "$(REGISTRY)" $(TAG)
up:
	./e2e/cluster/up $(NODES)
down:
	./e2e/cluster/down
lint:
	cargo fmt --all --check && cargo clippy --profile quick --workspace --all-targets --features leveret-e2e/cluster -- -D warnings
fix:
	cargo clippy --profile quick --workspace --all-targets --fix --allow-dirty --allow-staged && cargo fmt --all
