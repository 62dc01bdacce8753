# Every target runs in the project's own virtual environment; `make setup` makes it.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PROTOS := $(sort $(wildcard proto/swarmd/api/pb/*.proto))

.PHONY: help setup up down check test proto bench clean
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -e '.[dev]'
	touch $@

setup: $(VENV)/.ready ## Make the virtual environment with everything in it

check: setup ## Format, lint, types, import contracts, wire facts, generated code fresh, tidy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/wire/facts/check_wire.py proto --strict
	$(BIN)/pytest -q tests/tidy

test: setup ## Run every test; engine tests skip with a reason where there is no root or dockerd
	$(BIN)/pytest -q

proto: setup ## Generate swarmd/api from proto/
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=. --pyi_out=. $(PROTOS)
	$(BIN)/python proto/exports.py > swarmd/api/__init__.py
	$(BIN)/ruff check -q --fix swarmd/api/__init__.py
	$(BIN)/ruff format -q swarmd/api/__init__.py

clean: ## Remove what the targets made
	rm -rf $(VENV) .run build dist *.egg-info
