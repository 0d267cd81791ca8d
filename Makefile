# One task list for people, hooks and CI. Needs python3 (3.11 or newer, with venv) and make.
PYTHON ?= python3
VENV := .venv
# Test files are shared out between as many processes; 0: all in this one
WORKERS ?= 2
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test check bench fuzz lock clean help
.DEFAULT_GOAL := help

help:
	@echo "make demo    the whole story on an emulated insulin pump, then six attacks that fail"
	@echo "make test    the test suite"
	@echo "make check   ruff, mypy, and the full sweeps (slow)"
	@echo "make bench   figures against peers, as ratios"
	@echo "make fuzz    every parser under coverage-guided fuzzing, a minute each (FUZZ_ARGS='trust -s 600' for less or more)"
	@echo "make lock    lock the dependencies again (needs uv in $(VENV))"

$(VENV)/python.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "devguard needs Python 3.11 or newer; set PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "this python3 has no venv: install it first (Debian: apt install python3-venv)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/run.stamp: $(VENV)/python.stamp requirements.lock pyproject.toml
	@echo "making the environment (once)..."
	@$(PIP_INSTALL) --require-hashes -r requirements.lock
	@$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp requirements-dev.lock
	@$(PIP_INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

demo: $(VENV)/run.stamp
	@$(BIN)/python tools/fetch_firmware.py --quiet || true
	@$(BIN)/devguard demo

test: $(VENV)/test.stamp
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow" $(PYTEST_ARGS)

check: $(VENV)/test.stamp
	$(BIN)/ruff check devguard tests tools
	$(BIN)/ruff format --check devguard tests tools
	$(BIN)/mypy
	DEVGUARD_HYPOTHESIS=check $(BIN)/python -m pytest $(PYTEST_ARGS)

bench: $(VENV)/test.stamp
	$(BIN)/python tools/bench.py

$(VENV)/fuzz.stamp: $(VENV)/test.stamp requirements-fuzz.lock
	@$(PIP_INSTALL) --require-hashes -r requirements-fuzz.lock
	@touch $@

fuzz: $(VENV)/fuzz.stamp
	$(BIN)/python tools/fuzz.py $(FUZZ_ARGS)

lock: $(VENV)/python.stamp
	$(PIP_INSTALL) uv
	$(BIN)/uv pip compile --quiet --generate-hashes --universal --no-emit-index-url --no-header --python-version 3.11 \
		--extra build pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --generate-hashes --universal --no-emit-index-url --no-header --python-version 3.11 \
		--extra build --extra test --extra check pyproject.toml -o requirements-dev.lock
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["fuzz"])' \
		| $(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 - -o requirements-fuzz.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis .pytest_cache
