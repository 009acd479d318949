# Two commands do everything: `make demo` and `make test`. Both make the environment .venv first.
#
#   make demo CHECKPOINT=weights/x.params [CONFIG=MaskFlownet_S]
#   make test [TESTS=tests/network]
#   make pythons          the tests on every Python 3.8 to 3.13 that is found
#
# PYTHON chooses the interpreter. Without REQUIREMENTS the newest releases of everything are taken,
# beside MXNet for the CPU; with REQUIREMENTS=requirements-cu117.txt what that file says.

PYTHON ?= python3
VENV ?= .venv
REQUIREMENTS ?= requirements-base.txt
CONFIG ?= MaskFlownet_S
TESTS ?= tests
BIN := $(VENV)/bin

.PHONY: demo test lint pythons clean

demo: $(VENV)/.installed
	@test -n "$(CHECKPOINT)" || { echo "error: no weights are shipped yet, so name a checkpoint: make demo CHECKPOINT=FILE.params CONFIG=MaskFlownet_S" >&2; exit 2; }
	@$(BIN)/python -m examples.demo $(CONFIG) -c "$(CHECKPOINT)"

test: $(VENV)/.tested
	@echo "Running the tests; they take about seven minutes on two cores and end with a line of counts."
	@$(BIN)/python -m ruff check . && $(BIN)/python -m ruff format --check .
	@$(BIN)/python -m pytest $(TESTS)

lint: $(VENV)/.tested
	$(BIN)/python -m ruff check --fix . && $(BIN)/python -m ruff format .

pythons:
	tests/pythons.sh

# --no-deps: MXNet's metadata forbids NumPy 2 and so Python 3.13, where it works all the same.
$(VENV)/.installed: requirements-base.txt $(REQUIREMENTS)
	@echo "Making the environment $(VENV) (about a minute, some 600 MB) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(REQUIREMENTS)
	@$(BIN)/python -c "import importlib.util, sys; sys.exit(not importlib.util.find_spec('mxnet'))" \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps mxnet==1.9.1
	@touch $@

$(VENV)/.tested: $(VENV)/.installed requirements-dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

clean:
	rm -rf $(VENV)
