# Every target does its own set-up. `make help` lists them.
SHELL := /bin/bash
PY := .venv/bin/python
export PYTHONUNBUFFERED := 1

.PHONY: help setup setup-dev setup-review demo serve serve-review test test-fast test-chart check format stubs manifests constraints bench-gateway bench-engine bench-peers clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup:  ## create the environment in .venv
	@scripts/setup.sh runtime

setup-dev:
	@scripts/setup.sh dev

demo: setup  ## start the stack, ask, draw, answer interleaved, save pictures under out/, shut down
	@$(PY) examples/demo.py

serve: setup  ## start the stack on loopback and stay up
	@.venv/bin/medmax serve

setup-review: setup-dev
	@scripts/setup_review.sh browser

serve-review: setup  ## start a Label Studio with the review projects on loopback; PORT= for another than 8080
	@scripts/setup_review.sh server
	@$(PY) -m annotation.labelstudio --port $(or $(PORT),8080)

test: setup-review  ## all tests, with real servers
	@scripts/setup_openclip.sh
	@scripts/setup_triton.sh || echo 'Triton could not be set up: its tests say so and are skipped' >&2
	@scripts/test.sh all

test-fast: setup-dev  ## unit tests alone
	@scripts/test.sh fast

test-chart: setup-dev  ## the Helm chart, k8s/, docker/ and compose.yaml; no cluster needed
	@$(PY) -m pytest tests/unit/chart -q

check: setup-dev  ## format, lint, types, stub drift
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(PY) scripts/generate_stubs.py --check

format: setup-dev  ## rewrite the sources in the project's format
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

stubs: setup-dev  ## regenerate services/pb from protos/
	@$(PY) scripts/generate_stubs.py

manifests: setup-dev  ## write helm/medmax/README.md, k8s/ and the alerts in docs/operations.md from the chart
	@$(PY) scripts/chart_readme.py
	@$(PY) scripts/render_manifests.py
	@$(PY) scripts/operations_alerts.py

constraints: setup-dev  ## write the exact versions of .venv to constraints.txt
	@$(PY) scripts/freeze.py > constraints.new && mv constraints.new constraints.txt

bench-gateway: setup-dev  ## what the gateway adds to the first token
	@$(PY) -m loadtests.gateway_overhead

bench-engine: setup-dev  ## the engine against its peers in under five minutes; BENCH= for other arguments
	@$(PY) -m loadtests.engine $(or $(BENCH),--quick)

bench-peers: setup-dev  ## create .venv-vllm, in which the engine benchmark runs vLLM
	@scripts/setup_peers.sh

clean:  ## remove the environment and what was produced
	rm -rf .venv .venv-vllm .venv-labelstudio .venv-openclip .venv-triton out var .pytest_cache .mypy_cache .ruff_cache .hypothesis
