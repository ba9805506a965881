# One virtual environment, .venv, made on first need and brought up to date when pyproject.toml or
# constraints.txt change. Another Python: make test PYTHON=/path/to/python3.12

VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
ARGS ?=
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3.11 python3.12 python3 python)
IN_RANGE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test lint clean

help:  ## Show what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed  ## Run the main job on the embedded task; its last line says where the report is
	@$(BIN)/python -m calib_ebm.train $(ARGS)
	@echo "report: $$(ls -t runs/*/report.html | head -n 1)"

test: $(VENV)/.installed-dev  ## Run the tests (WORKERS=2 processes, ARGS="-k ece" for some of them)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

lint: $(VENV)/.installed-dev  ## Check style, formatting and types
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## Remove the virtual environment, caches and built files; runs are kept
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# $(1): what to install. Two -q leave pip's errors and nothing else.
define install
@echo "Installing into $(VENV) (once; it takes a minute or two) ..."
@$(BIN)/python -m pip install -q -q --disable-pip-version-check -c constraints.txt -e '$(1)'
endef

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,.)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,.[dev])
	@touch $(VENV)/.installed $@

$(BIN)/python:
	@found=; \
	for candidate in $(CANDIDATES); do \
	  if "$$candidate" -c '$(IN_RANGE)' >/dev/null 2>&1; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "calib_ebm needs Python 3.11 or 3.12, and none of these is one: $(CANDIDATES)." >&2; \
	  echo "Install one, or name it: make $(or $(MAKECMDGOALS),test) PYTHON=/path/to/python3.12" >&2; \
	  exit 1; \
	fi; \
	"$$found" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
