# Groundskeeper. `make` alone lists what there is to make. Nothing here needs root; root works too.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 3

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Sets up again only when a pin or the project file changed.
$(VENV)/ready: requirements.txt requirements-dev.txt requirements-train.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Groundskeeper needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	@# plain pip would bring gigabytes of CUDA to Linux; where uv's index is out of reach pip has a build of its own
	UV_HTTP_RETRIES=0 $(BIN)/uv pip install -q --python $(BIN)/python --torch-backend=cpu -r requirements-train.txt 2>&1 | tail -1; \
	  $(BIN)/python -m pip install -q --disable-pip-version-check -r requirements-train.txt \
	  || echo "torch is not to be had here: training will be unavailable, everything else works"
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

.PHONY: setup
setup: $(VENV)/ready ## Install everything the laptop needs into .venv

.PHONY: lighthouse
lighthouse: ## Install Lighthouse for page scans (needs npm; Chromium comes from your system)
	cd images/lighthouse && npm ci --omit=dev --ignore-scripts --no-audit --no-fund

.PHONY: up
up: setup ## Run the whole plane here (ONCE=1: every task once, then stop; DEMO=0: no demo data)
	@$(BIN)/keeper up $(if $(filter 1,$(ONCE)),--once) $(if $(filter 0,$(DEMO)),--no-demo)

.PHONY: test
test: setup ## Everything in small form (at most 10 minutes)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not full and not soak"

.PHONY: verify
verify: setup ## The full-size proofs (at most 30 minutes)
	$(BIN)/python -m pytest -n 2 --dist worksteal --timeout 900 -m "full and not alone and not soak"
	$(BIN)/python -m pytest --timeout 900 -m "full and alone and not soak"

.PHONY: soak
soak: setup ## The longest proofs, by hand
	$(BIN)/python -m pytest --timeout 5000 -m soak

.PHONY: check
check: setup ## Format, lint and types, as CI does
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/keeper docs --check

.PHONY: format
format: setup ## Write the code in its format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

PINS := $(sort $(wildcard requirements*.txt .github/tools/*/requirements.txt))
TOOLS := $(sort $(wildcard .github/tools/*/requirements.in))

.PHONY: lock
lock: setup ## Compile the pins anew from pyproject.toml and the tools' requirements.in
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --no-annotate --no-header \
	  -o requirements.txt pyproject.toml
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --no-annotate --no-header \
	  -c requirements.txt --group laptop --group dev -o requirements-dev.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --no-annotate --no-header \
	  -c requirements.txt -c requirements-dev.txt --group bench -o requirements-bench.txt
	$(BIN)/uv pip compile -q --no-deps --python-version 3.11 --no-annotate --no-header \
	  --group train -o requirements-train.txt
	for named in $(TOOLS); do \
	  $(BIN)/uv pip compile -q --universal --python-version 3.11 --no-annotate --no-header \
	    -o $${named%in}txt $$named || exit 1; done

.PHONY: lock-check
lock-check: setup ## Fail where the pins no longer follow from what is named
	@rm -rf $(VENV)/pins && mkdir $(VENV)/pins && tar -cf - $(PINS) | tar -xf - -C $(VENV)/pins && $(MAKE) -s lock && \
	  for pins in $(PINS); do diff -u $(VENV)/pins/$$pins $$pins || exit 1; done

.PHONY: clean
clean: ## Forget the laptop's plane: its database, objects and secrets
	rm -rf .groundskeeper
