# make setup      the environment, .venv (once)
# make demo       every stage on the built-in collection, into runs/demo/
# make real       a real language model on real text: needs the data that R2R_DATA_DIR names
# make test       everything: lint, then all tests
# make clients    an environment with other rerankers' clients, for the tests of the server; make test makes it
# make fast       lint, then the tests that start no Ray, no engine and no training
# make coverage   the same tests, and the share of lines that they run
# make lint       ruff and mypy
# make clean      remove the environment, runs/ and what tools left
#
# GPU=1 takes the GPU builds of vLLM and torch, GPU=0 the CPU builds; unset, a machine with nvidia-smi gets the former.

PYTHON ?= python3
GPU ?= $(if $(shell command -v nvidia-smi),1,0)

# uv reads the wheel folders that pip was told of. Without them, torch's CPU build comes from PyTorch's own index,
# which uv knows by the name of the backend.
FIND_LINKS := $(PIP_FIND_LINKS)
ifeq ($(GPU),1)
  BUILD := gpu
  INSTALL := --torch-backend=auto
else
  BUILD := cpu
  INSTALL := --constraints constraints-cpu.txt --overrides overrides-cpu.txt $(if $(FIND_LINKS),,--torch-backend=cpu)
endif
READY := .venv/ready-$(BUILD)
INTO := UV_FIND_LINKS="$(FIND_LINKS)" .venv/bin/uv pip install --quiet --compile-bytecode --python

.PHONY: setup clients demo real test fast coverage lint clean
setup: $(READY)

$(READY): pyproject.toml constraints.txt constraints-cpu.txt overrides-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is too old: Python 3.11 or newer is needed; name one with make PYTHON=..."; exit 2; }
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv || \
	  { echo "$(PYTHON) cannot make environments: install its venv package (on Debian: python3-venv)"; exit 2; }
	.venv/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(INTO) .venv/bin/python \
	  --constraints constraints.txt $(INSTALL) --editable ".[$(BUILD),test]"
	@rm -f .venv/ready-* && touch $@

.venv/bin/r2r: $(READY)

# Their packages contradict the engine's, so they have an environment of their own.
CLIENTS := .venv/clients/ready
clients: $(CLIENTS)

$(CLIENTS): pyproject.toml tests/serving/constraints.txt | $(READY)
	.venv/bin/uv venv --quiet --allow-existing --python .venv/bin/python .venv/clients
	$(INTO) .venv/clients/bin/python --constraints tests/serving/constraints.txt --group clients
	@touch $@

demo: $(READY)
	.venv/bin/r2r run jobs/configs/demo.yaml

real: $(READY)
	.venv/bin/python benchmarks/real.py

PYTEST := .venv/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: $(READY)
	.venv/bin/ruff check . && .venv/bin/ruff format --check .
	.venv/bin/mypy

test: lint $(CLIENTS)
	$(PYTEST)

fast: lint
	$(PYTEST) -m "not slow"

coverage: $(READY)
	$(PYTEST) -m "not slow" --cov --cov-report=term:skip-covered

clean:
	rm -rf .venv runs build dist .coverage .mypy_cache .pytest_cache .ruff_cache *.egg-info
