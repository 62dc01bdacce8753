# Every target runs in the project's own virtual environment; `make setup` makes it.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PROTOS := $(sort $(wildcard proto/swarmd/api/pb/*.proto))

.PHONY: help setup up down cluster cluster-down check test nightly proto bench clean
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -qq --disable-pip-version-check -e '.[dev]'
	touch $@

setup: $(VENV)/.ready ## Make the virtual environment with everything in it

RUN    := .run
SOCKET := unix://$(RUN)/swarmd.sock
CTL    := $(BIN)/swarmctl -H $(SOCKET)
PORT   ?= 2377

up: setup ## Start a daemon with its state in .run/, initialise a swarm, show it
	@mkdir -p $(RUN)
	@if [ -S $(RUN)/swarmd.sock ] && $(CTL) info >/dev/null 2>&1; then echo "swarmd runs already"; else \
	  nohup $(BIN)/swarmd --state-dir $(RUN)/state --run-dir $(RUN) --pidfile $(RUN)/swarmd.pid \
	    >>$(RUN)/swarmd.log 2>&1 </dev/null & \
	  n=0; until $(CTL) info >/dev/null 2>&1; do n=$$((n+1)); \
	    if [ $$n -gt 100 ]; then echo "swarmd did not start:"; tail -20 $(RUN)/swarmd.log; exit 1; fi; sleep 0.1; done; fi
	@$(CTL) node ls >/dev/null 2>&1 || $(CTL) init --advertise-addr 127.0.0.1:$(PORT) --listen-addr 127.0.0.1:$(PORT) >/dev/null
	@$(CTL) node ls
	@echo
	@$(CTL) join-token worker

down: ## End the daemon of `make up`; CLEAN=1 also forgets its state
	@pid=$$(cat $(RUN)/swarmd.pid 2>/dev/null); \
	if tr '\0' ' ' 2>/dev/null <"/proc/$$pid/cmdline" | grep -qF -- "--pidfile $(RUN)/swarmd.pid" \
	  && kill $$pid 2>/dev/null; then \
	  while kill -0 $$pid 2>/dev/null; do sleep 0.1; done; echo "swarmd ended"; \
	else echo "swarmd does not run"; fi
	@if [ -n "$(CLEAN)" ]; then rm -rf $(RUN); fi

cluster: setup ## Three managers and two workers with their state in .run/cluster/
	@.make/cluster.sh $(BIN) up

cluster-down: ## End the daemons of `make cluster`; CLEAN=1 also forgets their state
	@CLEAN=$(CLEAN) .make/cluster.sh $(BIN) down

check: setup ## Format, lint, types, import contracts, wire facts, generated code fresh, tidy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/wire/facts/check_wire.py proto --strict
	$(BIN)/pytest -q tests/tidy

test: setup ## Run every test; engine tests skip with a reason where there is no root or dockerd
	$(BIN)/pytest -q -n auto --dist worksteal

HISTORIES ?= 100
SEED      ?= $(shell date +%Y%m%d)

# Arguments for the simulator in NIGHTLY, as "--start 50000".
nightly: setup ## Long tests: other draws, 12000 simulated Raft groups; histories of real ones, pauses, partitions (root, dockerd)
	$(BIN)/pytest -q -n auto --hypothesis-profile=nightly tests/property tests/unit
	nice $(BIN)/python -m tests.sim.nightly $(NIGHTLY)
	$(BIN)/python -m tests.harness.histories --runs $(HISTORIES) --seed $(SEED)
	$(BIN)/python -m tests.harness.histories --runs 10 --seed $(SEED) --managers 5
	$(BIN)/python -m tests.harness.histories --runs 3 --seed $(SEED) --managers 2 --engines 1 --seconds 60
	SWARMD_REQUIRE_ENGINE=1 $(BIN)/pytest -q -rP tests/nightly/nightly_*.py

bench: setup ## Measure one and three managers against stock engines, alternately (root, dockerd, about 40 minutes)
	$(BIN)/python -m compileall -q swarmd
	$(BIN)/python -m bench.manager
	$(BIN)/python -m bench.quorum

proto: setup ## Generate swarmd/api from proto/
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=. --pyi_out=. $(PROTOS)
	$(BIN)/python proto/exports.py > swarmd/api/__init__.py
	$(BIN)/ruff check -q --fix swarmd/api/__init__.py
	$(BIN)/ruff format -q swarmd/api/__init__.py

clean: ## Remove what the targets made
	rm -rf $(VENV) .run build dist *.egg-info
