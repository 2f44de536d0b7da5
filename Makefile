# Everything a developer does here has a target; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
CLUSTER := PYTHONPATH=hack $(BIN)/python -m cluster
PYTEST := $(BIN)/pytest
UNIT := $(PYTEST) -n 3 --dist loadfile tests/unit

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.ready: requirements-dev.lock hack/uv.txt pyproject.toml snapshotter/pyproject.toml
	@hack/bootstrap

.PHONY: venv
venv: $(VENV)/.ready ## Python environment from the hashed locks

.PHONY: demo
demo: venv ## A real cluster, a real model at zero, its first answer, its queue, and back to zero
	@PYTHONPATH=hack $(BIN)/python -m demo

.PHONY: test
test: venv ## All tests: unit, real API server, real node (root, Debian 12, Go >= 1.26)
	@$(CLUSTER) preflight
	@$(CLUSTER) build
	$(UNIT)
	$(PYTEST) tests/api/operator
	$(PYTEST) tests/api --ignore tests/api/operator
	$(PYTEST) tests/e2e

.PHONY: soak
soak: venv ## The campaigns that `test` samples, whole: crash points, late events, kills, faulty stores
	GLOWPLUG_SOAK=1 $(PYTEST) -s tests/unit/staleness tests/unit/snapshotter/test_schedules.py tests/api/operator/crashpoints tests/api/operator/test_rest.py
	GLOWPLUG_SOAK=1 $(PYTEST) -s tests/e2e/test_rollout.py tests/e2e/test_restarts.py tests/e2e/test_upgrade.py
	GLOWPLUG_SOAK=1 $(PYTEST) -s tests/e2e/faults/test_kills.py tests/e2e/test_argocd.py

.PHONY: test-fast
test-fast: venv ## Unit tests only: no cluster, within two minutes on two cores
	$(UNIT)

.PHONY: lint
lint: venv ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd examples/smollm2 && ../../$(BIN)/mypy --strict *.py
	$(BIN)/lint-imports

.PHONY: format
format: venv ## Rewrite the code in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: venv ## The claims of the README, measured here
	$(BIN)/python benchmarks/cold_start.py --quick
	$(BIN)/python benchmarks/spike.py --quick
	$(BIN)/python benchmarks/scale.py --quick
	$(BIN)/python benchmarks/restore.py --quick

.PHONY: crds
crds: venv ## Generate the CRDs and docs/reference.md from the pydantic models, and the charts' copies
	$(BIN)/python -m glowplug.api.crds crds
	cp crds/*.yaml charts/glowplug/crds/
	cp crds/*.yaml charts/glowplug-crds/files/
	cp dashboards/alerts.yaml dashboards/glowplug.json charts/glowplug/files/
	PYTHONPATH=hack $(BIN)/python -m reference

.PHONY: cluster-up
cluster-up: venv ## A local Kubernetes 1.35 from source, without Docker; seconds once built
	$(CLUSTER) up

.PHONY: cluster-down
cluster-down: venv ## Stop it; leaves no process, mount, bridge or iptables rule
	$(CLUSTER) down

.PHONY: images
images: venv ## Build the container images and load them into the local cluster
	$(CLUSTER) images

.PHONY: lock
lock: venv ## Resolve the dependencies again into the hashed locks
	$(BIN)/uv pip compile -q hack/uv.in --upgrade --generate-hashes --no-annotate --universal --python-version 3.11 -o hack/uv.txt --custom-compile-command "make lock"
	$(BIN)/uv pip compile -q pyproject.toml snapshotter/pyproject.toml --upgrade --generate-hashes --no-annotate --no-emit-package glowplug-snapshotter --universal --python-version 3.11 -o requirements.lock --custom-compile-command "make lock"
	$(BIN)/uv pip compile -q snapshotter/pyproject.toml --generate-hashes --no-annotate --universal --python-version 3.11 -c requirements.lock -o snapshotter/requirements.lock --custom-compile-command "make lock"
	$(BIN)/uv pip compile -q pyproject.toml snapshotter/pyproject.toml --group dev --generate-hashes --no-annotate --no-emit-package glowplug-snapshotter --universal --python-version 3.11 -c requirements.lock -o requirements-dev.lock --custom-compile-command "make lock"
	$(BIN)/uv pip compile -q benchmarks/peers.in --upgrade --generate-hashes --no-annotate --universal --python-version 3.11 -o benchmarks/peers.txt --custom-compile-command "make lock"

.PHONY: clean
clean: ## Remove what was generated in this folder (the cluster and its cache stay)
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
