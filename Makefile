# Everything here runs in a fresh clone with nothing but make, git and Python >= 3.11.
# The environment lives in .venv; it is made on first use and again when pyproject.toml changes.

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help demo test lint bench clean servers

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# pip and pyright say nothing of their own new releases.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

# Tests start hundreds of processes: each of them would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r name what; do \
		printf '%-14s %s\n' "$$name" "$$what"; done

demo: $(READY) ## see stepwell work
	@$(BIN)/python -m stepwell.demo

test: lint servers ## everything CI runs: style, types, import direction, tests, examples
	@$(BIN)/python -m pytest -n 2 --dist worksteal -q --hypothesis-profile=ci

# Tests of the stores start servers of their own. Where a program is missing root gets it installed;
# anyone else is told, and the tests that need it are skipped (with CI=1 they fail).
servers:
	@wanted=; \
	{ command -v initdb || ls /usr/lib/postgresql/*/bin/initdb; } >/dev/null 2>&1 || wanted="postgresql"; \
	for program in pgbouncer redis-server openssl; do \
		command -v $$program >/dev/null || wanted="$$wanted $$program"; \
	done; \
	if [ -z "$$wanted" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "stepwell: the tests need more; running: apt-get install" $$wanted; \
		export DEBIAN_FRONTEND=noninteractive; \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends $$wanted; } >/dev/null \
			|| echo "stepwell: that failed; tests that need them will not run" >&2; \
	else \
		echo "stepwell: tests that need these are skipped (Debian: apt-get install" $$wanted")" >&2; \
	fi

lint: $(READY) ## style, types and import direction only
	@echo "ruff check"; $(BIN)/ruff check --quiet
	@echo "ruff format --check"; $(BIN)/ruff format --check --quiet
	@echo "pyright"; $(BIN)/pyright
	@echo "import-linter"; $(BIN)/lint-imports --no-cache --no-logo

bench: $(READY) ## measure; one JSON line per measurement
	@$(BIN)/python -m benchmarks

clean: ## remove .venv, caches and build results
	@rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist
	@find src tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# Pips older than 25.1 know no dependency groups, so the one that Python brought is renewed first.
$(READY): pyproject.toml
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then $(make-venv); fi
	@echo "stepwell: installing the development tools into $(VENV) (about a minute, once)"
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --group dev --editable '.[all]'
	@touch $@

# Takes the first Python >= 3.11 that can make an environment with pip in it. Debian splits that
# ability off into a package of its own: root gets it installed, anyone else gets told.
define make-venv
	set -u; usable=; bare=; \
	for python in $(PYTHON) python3.11 python3.12 python3.13 python3.14 python3 python; do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
		if "$$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then usable=$$python; break; fi; \
		bare=$${bare:-$$python}; \
	done; \
	if [ -z "$$usable$$bare" ]; then \
		echo "stepwell: no Python 3.11 or newer on the PATH; install one (Debian: apt-get install python3 python3-venv python3-pip) or name it: make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	fi; \
	if [ -z "$$usable" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "stepwell: $$bare cannot make environments; running: apt-get install python3-venv python3-pip"; \
		export DEBIAN_FRONTEND=noninteractive; \
		{ apt-get update -qq && apt-get install -y -qq python3-venv python3-pip; } >/dev/null || true; \
		if "$$bare" -c 'import venv, ensurepip' >/dev/null 2>&1; then usable=$$bare; fi; \
	fi; \
	if [ -z "$$usable" ]; then \
		echo "stepwell: $$bare lacks the modules venv and ensurepip; install them (Debian: apt-get install python3-venv python3-pip) and run make again" >&2; \
		exit 1; \
	fi; \
	echo "stepwell: making $(VENV) with $$("$$usable" --version)"; \
	"$$usable" -m venv --clear $(VENV)
endef
