# `make demo` and `make test` need Python 3.11 or newer and the package index, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Servers and tests import many modules again and again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test chaos nightly lint lock clean

demo: $(READY)
	$(BIN)/fractal-prefect demo $(if $(KEEP),--keep) $(if $(DATA),--data-dir $(DATA))

# All tests, or those of a tier: TIER=unit, api, stack or cluster. WORKERS processes run them: for two
# processors three, as tests on real servers wait half of the time.
WORKERS ?= 3

test: $(READY) browser servers
	$(BIN)/pytest -n $(WORKERS) $(if $(TIER),-m $(TIER)) $(PYTEST)

# Kill what can be killed while jobs run, e.g. CHAOS="--seed 7 --rounds 50 --on slurm_sudo".
chaos: $(READY)
	$(BIN)/python benchmarks/chaos.py $(CHAOS)

# What tests do by day in a short form, for hours and with a new seed. What fails does not keep the
# rest from being done. NIGHT=night-chaos does one of it, SEED=7 another night's again.
NIGHT ?= night-examples night-differences night-schedules night-upkeep night-chaos
SEED := $(or $(SEED),$(shell od -An -N3 -tu4 /dev/urandom | tr -d " "))

.PHONY: $(NIGHT)
nightly: $(READY) browser servers
	@echo "The seed of this night is $(SEED)."
	$(MAKE) --keep-going $(NIGHT) SEED=$(SEED)

night-examples: $(READY)
	NIGHT_SEED=$(SEED) $(BIN)/pytest -n $(WORKERS) -m nightly --hypothesis-seed=$(SEED) --timeout=7200

night-differences: $(READY)
	$(BIN)/python -m tests.differential --requests 5000 --workflows 2000 --seed $(SEED)

night-schedules: $(READY)
	$(BIN)/python benchmarks/schedules.py --seconds 1200 --seed $(SEED)

night-upkeep: $(READY)
	$(BIN)/python -m benchmarks.upkeep --jobs 2000 --window 600

night-chaos: $(READY)
	$(BIN)/python benchmarks/chaos.py --rounds 50 --seed $(SEED) $(CHAOS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The environment: everything from the lock, with hashes checked, and then this project.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/# via/p' requirements.lock > $(VENV)/uv.txt
	$(BIN)/python -m pip install --quiet --require-hashes --requirement $(VENV)/uv.txt
	$(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode --python $(BIN)/python \
	    requirements.lock
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	touch $@

# Debian's Chromium, for the test that looks at the Prefect UI; skipped where it cannot be had.
.PHONY: browser
browser:
	@.ci/install-chromium

# SLURM and nginx, for the tests on a cluster of this machine and that of what stands before the API;
# skipped where they cannot be had.
.PHONY: servers
servers:
	@.ci/install-servers

# Renew the lock from pyproject.toml.
lock: $(READY)
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url \
	    --no-emit-find-links --upgrade --python-version 3.11 --group dev \
	    --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) demo-output .mypy_cache .pytest_cache .ruff_cache .hypothesis
