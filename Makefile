# Two commands do everything on a bare machine with Python >= 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PARITY := .venv-parity

.PHONY: demo test fast slow simulations lint check bench parity lock clean

demo: $(READY)
	$(BIN)/headrace demo

test: lint
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not simulation"

fast: $(READY)
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow and not simulation"

slow: $(READY)
	$(BIN)/python -m pytest -n auto --dist worksteal -m slow

simulations: $(READY)  ## thousands of seeded draws of intervals, tests and guarantees: half an hour
	$(BIN)/python -m pytest -n auto --dist worksteal -m simulation

lint: $(READY)
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy

check: lint fast

bench: $(READY)
	$(BIN)/python -m benchmarks

parity: $(PARITY)/.ready  ## asks fastai, in an environment of its own, for the fixtures of tests/fixtures/parity
	for script in parity/[a-z]*.py; do echo "== $$script"; $(PARITY)/bin/python $$script || exit 1; done

# The list is whole, so nothing is resolved: fastai demands torchvision, which the CPU build of torch clashes with.
$(PARITY)/.ready: parity/requirements.txt
	test -x $(PARITY)/bin/python || $(PYTHON) -m venv $(PARITY)
	$(PARITY)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r parity/requirements.txt
	touch $(PARITY)/.ready

# Exact versions come from requirements.lock; torch's build for the CPU or for CUDA is the index's choice.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Headrace needs Python 3.11 or newer')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(READY)

lock: $(READY)
	$(BIN)/python -m pip freeze --all --exclude-editable --exclude headrace --exclude pip | sed 's/+cpu$$//' > requirements.lock

clean:
	rm -rf $(VENV) $(PARITY) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
