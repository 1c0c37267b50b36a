SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON := .venv/bin/python
# Test files that run at a time; hosts mostly wait for each other, so that two keep two cores busy.
LANES ?= 2
STACK ?= local
OUTPUT ?= .state/bundle-$(STACK).tar
STARTED := $(shell date +%s)
ELAPSED = $$(($$(date +%s) - $(STARTED))) s
SCRIPTS := env.sh $(wildcard toolchain/*.sh toolchain/*/build.sh localhosts/files/*.sh workloads/*.sh)

.PHONY: help up down setup model table status test test-slow check bundle bench bench-policy bench-provision bench-scale gpu-facts generate format hosts hosts-down

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.installed: requirements.lock
	@echo "Python environment …"
	@python3 -m venv .venv
	@.venv/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

up: hosts model ## from a clean clone to an answered inference on two edge hosts of this machine (root)
	@echo "stack local: pulumi up …  [$(ELAPSED)]"
	@. ./env.sh && pulumi stack select --create local && pulumi up --yes --stack local --policy-pack policies
	@. ./env.sh && $(PYTHON) -m status --stack local
	@. ./env.sh && $(PYTHON) -m workloads query "$$(pulumi stack output --stack local --json | jq -r '.endpoints["ai-inference"]')"
	@echo "up in $(ELAPSED); take it away: make down"

down: ## take away what `make up` made: the stack, its hosts and their disks (the cache of builds stays)
	@. ./env.sh; if [ -d .state/pulumi/.pulumi/stacks/edge-inference ] && pulumi stack select local 2>/dev/null; then \
		pulumi destroy --yes --skip-preview --stack local || echo "destroy failed; the hosts' disks go anyway"; \
		pulumi stack rm --yes --force --preserve-config --stack local; \
		sed -i '/^encryptionsalt:/d' stacks/Pulumi.local.yaml; \
	fi
	@$(PYTHON) -m localhosts delete

setup: ## fetch or build what is missing: Python environment, Pulumi, K3s, WasmEdge, cosign
	@toolchain/bootstrap.sh
	@$(MAKE) --no-print-directory .venv/.installed
	@$(PYTHON) -m toolchain build

model: setup ## build, compile and sign the sample model's image
	@. ./env.sh && $(PYTHON) -m workloads build

bundle: model ## all that a site without internet needs for STACK (default local), signed: OUTPUT, a .tar or a folder
	@. ./env.sh && $(PYTHON) -m bundle make --stack $(STACK) --output $(OUTPUT)

status: ## nodes, pods and what runs them
	@. ./env.sh && $(PYTHON) -m status

table: .venv/.installed ## parts wanted, found, and from where
	@$(PYTHON) -m toolchain

hosts: setup ## make the embedded default's two edge hosts on this machine (root)
	@$(PYTHON) -m localhosts create

hosts-down: ## take the hosts away
	@$(PYTHON) -m localhosts delete

check: .venv/.installed ## lint, types, shell scripts
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy --no-error-summary .
	@shellcheck $(SCRIPTS)
	@$(PYTHON) -c "from components.step import script_files, steps; [print(*script_files(step)) for step in steps()]" | while read -r files; do cat $$files | shellcheck -s sh -e SC2034,SC2317 -; done # as a step runs them
	@echo "check: clean"

test: model check ## everything: checks, unit, policy, host and end-to-end tests
	@. ./env.sh && $(PYTHON) -m pytest --numprocesses $(LANES) --dist loadfile --no-loadscope-reorder

test-slow: model ## the tests that `make test` leaves out: many hosts, K3s upgraded (root, about 30 minutes)
	@$(PYTHON) -m toolchain build k3s-previous kube-bench
	@. ./env.sh && $(PYTHON) -m pytest -m slow

bench: model ## figures of the platform beside a peer's, in one table (root, about 5 minutes)
	@. ./env.sh && $(PYTHON) -m tests.bench

bench-policy: model ## what the policy pack adds to previews, beside an empty pack (root, about 6 minutes)
	@. ./env.sh && $(PYTHON) -m tests.bench.policy

bench-provision: model ## bare hosts to Ready and a second run, beside Ansible and the install script (root, about 15 minutes)
	@. ./env.sh && $(PYTHON) -m tests.bench.provision

gpu-facts: ## what the NVIDIA GPUs of this machine do: check, CDI, NVML, CUDA, WasmEdge (installs nothing)
	@python3 -m tests.gpu

bench-scale: model ## time and memory of previews of 10, 100 and 1,000 hosts (about 10 minutes)
	@. ./env.sh && $(PYTHON) -m tests.bench.scale

generate: .venv/.installed ## write the schemas of settings and the rules' pages again
	@$(PYTHON) -m stacks.sites >stacks/settings.schema.json.new && mv stacks/settings.schema.json.new stacks/settings.schema.json
	@$(PYTHON) -m policies.config >policies/settings.schema.json.new && mv policies/settings.schema.json.new policies/settings.schema.json
	@$(PYTHON) -m policies.pages

format: .venv/.installed ## format the code
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .
