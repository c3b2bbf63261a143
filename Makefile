# make demo   set up and run the whole pipeline on the built-in world      make serve  Prefect server, worker, deployments
# make test   everything CI runs                                       make models train the two small models again
# make test-fast  without slow tests, vLLM and root                    make docs   pages and API from docstrings, in site/
# make chaos  every fault at every stage, hours; resumes where it was stopped
# make mutants  small changes of the code behind the figures: do the tests notice? MUTANTS=40 a module (extra mutants)
# make canary  the quick tests with the newest versions, in an environment of their own, .venv-next
# make fuzz   every parser against mutated files, FUZZ_SECONDS=120 each (needs the extra fuzz)
VENV   ?= .venv
PYTHON ?= python3
BIN     = $(VENV)/bin
FUZZ_SECONDS ?= 120
MUTANTS ?= 40
BUILD  ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
PIP     = $(BIN)/pip install -q --disable-pip-version-check
TORCH   = $(shell sed -n 's/^torch==//p' constraints.txt)

.PHONY: demo test test-fast check docs chaos fuzz mutants canary serve models env clean

demo: env
	@$(BIN)/degla run demo

test: check
	$(BIN)/python -m pytest

test-fast: env
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow and not vllm and not root"

check: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini
	$(BIN)/lint-imports
	$(BIN)/mkdocs build --strict

docs: env
	$(BIN)/mkdocs build --strict

chaos: env
	$(BIN)/python -m tests.chaos runs/chaos

fuzz: env
	@$(BIN)/python -c 'import atheris' || { echo "fuzz: no atheris; fix: $(BIN)/pip install -c constraints.txt -e '.[fuzz]'"; exit 2; }
	for target in $$($(BIN)/python scripts/fuzz.py --list); do \
	  $(BIN)/python scripts/fuzz.py $$target -max_total_time=$(FUZZ_SECONDS) || exit 1; done

mutants: env
	@$(BIN)/python -c 'import cosmic_ray' || { echo "mutants: no cosmic-ray; fix: $(BIN)/pip install -c constraints.txt -e '.[mutants]'"; exit 2; }
	OMP_NUM_THREADS=1 $(BIN)/python scripts/mutants.py --most $(MUTANTS)

canary:
	@$(PYTHON) -m venv .venv-next && .venv-next/bin/pip install -q --disable-pip-version-check uv
	@.venv-next/bin/uv pip install -q --python .venv-next/bin/python --torch-backend cpu \
	  --override constraints-next.txt -r pyproject.toml --extra dev
	@.venv-next/bin/python scripts/fix_torchvision.py
	OMP_NUM_THREADS=1 .venv-next/bin/python -m pytest -n auto -m "not slow and not vllm and not root"

serve: env
	@exec $(BIN)/degla serve

models: env
	$(BIN)/python scripts/train_language_model.py
	$(BIN)/python scripts/train_starting_clip.py

env: $(VENV)/.ready

# vLLM's CPU build asks for torch's, which PyPI does not have; uv knows where PyTorch keeps it.
# torchaudio and torchcodec come with vLLM's CPU build and do not load beside a CPU torch; nothing here needs them.
$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "setting up $(VENV) for this machine ($(BUILD)): about 5 minutes and 5 GB, once"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "env: $$($(PYTHON) --version); expected 3.11 or later; fix: make PYTHON=python3.11"; exit 2; }
	@$(PYTHON) -m venv $(VENV)
	@if [ $(BUILD) = gpu ] || $(PIP) --dry-run --no-deps "torch==$(TORCH)+cpu" 2>/dev/null; then \
	  $(PIP) -c constraints.txt -e '.[dev,$(BUILD)]'; \
	else \
	  echo "pip finds no CPU build of torch $(TORCH): taking it from PyTorch's own index"; \
	  $(PIP) -c constraints.txt uv && $(BIN)/uv pip install -q --python $(BIN)/python --torch-backend cpu \
	    -c constraints.txt -e '.[dev,cpu]'; \
	fi
	@if [ $(BUILD) = cpu ]; then $(BIN)/pip uninstall -q -y torchaudio torchcodec; fi
	@$(BIN)/python scripts/fix_torchvision.py
	@touch $@

clean:
	rm -rf $(VENV) .venv-next .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache site
