# Two commands do everything: `make demo` and `make test`. Both make the environment .venv first, with this checkout
# installed in it (pip install -e .).
#
#   make demo [CHECKPOINT=x.params CONFIG=MaskFlownet_S] [ENGINE=torch]
#   make test [TESTS=tests/network] [JOBS=4] [TORCH=]
#   make pythons          the tests on every Python 3.10 to 3.14 that is found
#
# PYTHON chooses the interpreter. The newest releases of everything are taken, and MXNet for the CPU; with
# REQUIREMENTS=requirements-cu117.txt what that file says; with ENGINE=torch PyTorch and no MXNet. The tests want
# both: TORCH says which PyTorch, and without any (TORCH=) the tests of its engine are skipped. On Linux pip's own
# choice brings CUDA, some gigabytes; a PyTorch for CPUs that was installed in the environment before is kept.

PYTHON ?= python3
VENV ?= .venv
ENGINE ?= mxnet
TORCH ?= torch>=2.6,<2.14
REQUIREMENTS ?=
CHECKPOINT ?=
CONFIG ?= MaskFlownet
TESTS ?= tests
JOBS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
INSTALLED := $(VENV)/.installed-$(ENGINE)

.PHONY: demo test lint pythons clean

demo: $(INSTALLED)
	@$(BIN)/python -m maskflownet.examples.demo $(CONFIG) $(if $(CHECKPOINT),-c "$(CHECKPOINT)") --engine $(ENGINE)

test: $(VENV)/.tested
	@echo "Running the tests; they take four to twelve minutes on two cores and end with a line of counts."
	@$(BIN)/python -m ruff check . && $(BIN)/python -m ruff format --check .
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(TESTS)

lint: $(VENV)/.tested
	$(BIN)/python -m ruff check --fix . && $(BIN)/python -m ruff format .

pythons:
	tests/pythons.sh

# --no-deps: MXNet's metadata forbids NumPy 2 and so Python 3.13, where it works all the same.
$(INSTALLED): pyproject.toml $(REQUIREMENTS)
	@echo "Making the environment $(VENV) (about a minute, some 600 MB; with CUDA's PyTorch some gigabytes) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) $(if $(REQUIREMENTS),-r $(REQUIREMENTS),-e .$(if $(filter torch,$(ENGINE)),[torch]))
	@test $(ENGINE) = torch || $(BIN)/python -c "import importlib.util, sys; sys.exit(not importlib.util.find_spec('mxnet'))" \
		|| $(PIP) --no-deps mxnet==1.9.1
	@touch $@

$(VENV)/.tested: $(INSTALLED)
	@echo "Adding what the tests need (half a minute, some 2.4 GB) ..."
	@$(PIP) -e .[dev] $(if $(TORCH),"$(TORCH)")
	@touch $@

clean:
	rm -rf $(VENV)
