SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON := .venv/bin/python
SCRIPTS := env.sh $(wildcard toolchain/*.sh toolchain/*/build.sh localhosts/files/*.sh)

.PHONY: help setup table preview policy test check format hosts hosts-down

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.installed: requirements.lock
	@echo "Python environment …"
	@python3 -m venv .venv
	@.venv/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

setup: ## build what is missing: Python environment, Pulumi, K3s, cosign (cold: about 40 minutes on two cores)
	@toolchain/bootstrap.sh
	@$(MAKE) --no-print-directory .venv/.installed
	@$(PYTHON) -m toolchain build

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
	@for script in components/scripts/*.sh; do cat components/scripts/lib.sh $$script | shellcheck -s sh -e SC2034,SC2317 -; done # as a step runs it
	@echo "check: clean"

test: setup check ## everything: checks, unit, policy and host tests
	@. ./env.sh && $(PYTHON) -m pytest

format: .venv/.installed ## format the code
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .
