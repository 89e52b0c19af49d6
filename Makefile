# Everything a person does with this project, by name: `make` alone lists it.
# Needs make and a Python of at least 3.11; everything else goes into .venv.

VENV ?= .venv
JOBS ?= 4
BIN := $(VENV)/bin
ARGS ?=

# The first of these that is new enough and can make virtual environments; `make PYTHON=… setup`
# takes another. Asked only when a virtual environment is made.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	$$p -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)

# A file of tests stays in one process, which makes what its tests share once; the files keep their
# order: what takes long first.
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

SOURCES := crawler $(wildcard main.py) tests
SCRIPTS := .ci/run .ci/test-all $(wildcard deploy.sh deploy/*.sh)
PIP := $(BIN)/python -m pip --disable-pip-version-check
UV_VERSION := 0.13.9
# It makes the changes of `make mutants`; nothing else needs it, so it is not among the packages.
COSMIC_RAY_VERSION := 8.7.0

# Where uv is at hand it installs in seconds what takes pip a minute or two. The locks are complete,
# so nothing need be resolved (--no-deps). What uv cannot reach, such as an index that only pip is
# told of, pip gets.
UV ?= $(shell command -v uv)
PINNED := --quiet --no-deps --require-hashes
define install
	@$(if $(UV),$(UV) pip install $(PINNED) --python $(BIN)/python -r $(1) 2>/dev/null ||) \
		$(PIP) install $(PINNED) -r $(1)
endef

# Tests start hundreds of processes, each of which would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run serve test test-all mutants check lint format coverage bench simulate torture soak fleet lock sbom clean

help: ## List what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
		awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

setup: $(VENV)/.dev-installed ## Make .venv with the pinned packages (once; then instant)
	@echo "$(VENV) is ready"

run: $(VENV)/.installed ## Crawl songs 1 to 2000 of the embedded site through the function
	@$(BIN)/python -m crawler demo $(ARGS)

serve: $(VENV)/.installed ## The same, and keep the site and the function up until Ctrl-C
	@$(BIN)/python -m crawler demo --serve $(ARGS)

test: $(VENV)/.dev-installed ## Run the tests that take minutes (ARGS="-k pace" for some of them)
	@$(PYTEST) -m "not once" $(ARGS)

test-all: $(VENV)/.dev-installed ## Run all tests, on every Python that is here (20 minutes)
	@.ci/test-all

check: lint test ## Lint, types, tests

lint: $(VENV)/.dev-installed ## Lint, format and types, without the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES)
	$(BIN)/shellcheck $(SCRIPTS)
	$(BIN)/shfmt -i 2 -ci -d $(SCRIPTS)

format: $(VENV)/.dev-installed ## Write the code as the formatter wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/shfmt -i 2 -ci -w $(SCRIPTS)

coverage: $(VENV)/.dev-installed ## Run the tests and hold the coverage gate (pyproject.toml)
	@$(PYTEST) --cov --cov-report=term $(ARGS)

mutants: $(VENV)/.dev-installed ## Change one thing at a time, and count what the tests notice (an hour)
	@$(PIP) install --quiet cosmic-ray==$(COSMIC_RAY_VERSION)
	@$(BIN)/python -m tests.mutants $(ARGS)

simulate: $(VENV)/.dev-installed ## Crawl 100,000 simulated worlds (ARGS=4711: one of them)
	@$(BIN)/python -m tests.simulate $(or $(ARGS),0 100000)

bench: $(VENV)/.dev-installed ## Measure, and write the tables of the README
	@$(BIN)/python -m benchmarks $(ARGS)

fleet: $(VENV)/.dev-installed ## Fill 200,000 songs by three instances behind a queue (15 minutes)
	@FLEET=long $(BIN)/python -m pytest tests/test_fleet.py -n 0 -rP $(ARGS)

torture: $(VENV)/.dev-installed ## Kill, double and starve crawls at length, and count what is lost
	@$(BIN)/python -m tests.torture $(ARGS)

soak: $(VENV)/.dev-installed ## Crawl for ten minutes through changing faults (ARGS=60: one)
	@$(BIN)/python -m tests.soak $(ARGS)

lock: ## Pin the newest versions of what requirements.in and requirements-dev.in list
	@$(MAKE) --no-print-directory $(BIN)/python
	@$(PIP) install --quiet uv==$(UV_VERSION)
	@for name in requirements requirements-dev; do \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
			--upgrade --custom-compile-command "make lock" $$name.in -o $$name.txt || exit 1; \
	done

sbom: $(VENV)/.dev-installed ## List what is deployed as CycloneDX, build/sbom.json
	@mkdir -p build
	@$(BIN)/cyclonedx-py requirements requirements.txt --output-reproducible \
		--of JSON -o build/sbom.json
	@echo "build/sbom.json lists what requirements.txt pins"

clean: ## Remove what was made here, but no songs
	rm -rf $(VENV) build dist artifacts htmlcov .coverage .coverage.* *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find crawler tests -name __pycache__ -type d -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python of at least 3.11 with venv found." \
		"Name one: make PYTHON=/path/to/python3 setup" >&2; exit 1; }
	@echo "Making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

# Two stamps, so that `make run` waits for no tool of the tests.
$(VENV)/.installed: requirements.txt | $(BIN)/python
	@echo "Installing the pinned packages"
	$(call install,requirements.txt)
	@touch $@

$(VENV)/.dev-installed: requirements-dev.txt $(VENV)/.installed
	@echo "Installing the pinned tools"
	$(call install,requirements-dev.txt)
	@touch $@
