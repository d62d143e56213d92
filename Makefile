# Everything runs in .venv, which is made and filled on first use: `make help` lists the targets.

PYTHON ?= python3
WORKERS ?= 2
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq install --constraint constraints.txt
TORCH := torch==2.13.0

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint style bench docs doctor clean distclean

help: ## this list
	@echo "Usage: make TARGET [PYTHON=python3.12] [WORKERS=2] [ARGS='...']"
	@sed -n 's/^\([a-z]*\):.*## /  \1\t/p' Makefile | expand -t 14

DEMO_ARMS := "labels alone" FixMatch "permuted pairs" "teacher's soft labels"

demo: $(VENV)/.demo ## train students of emoji with the emoji's names, on a CPU, offline (ARGS: of the recipe)
	@$(BIN)/python recipes/emoji_l2v.py --arms $(DEMO_ARMS) $(ARGS)

# mypy takes 20 seconds of one core, so that it runs beside the tests; what it finds is told at once, and again below them.
test: style ## lint and every test, in WORKERS processes (ARGS: of pytest)
	@said=$$(mktemp); trap 'rm -f $$said' EXIT; \
	{ $(BIN)/mypy > $$said 2>&1 || { echo; cat $$said; false; }; } & types=$$!; \
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS); tests=$$?; \
	wait $$types; types=$$?; cat $$said; exit $$((tests + types > 0))

lint: style ## style, formatting, layers, types
	@$(BIN)/mypy

style: $(VENV)/.test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

bench: $(VENV)/.test ## the benchmarks (ARGS: of the benchmarks)
	@$(BIN)/python -m tests.benchmarks $(ARGS)

docs: $(VENV)/.test ## the API reference, into build/docs
	@rm -rf build/docs
	@$(BIN)/python -m tests.docs --output build/docs

doctor: $(VENV)/.demo ## diagnose the installation (ARGS=--online: ask the Hub, too)
	@$(BIN)/python -m hf_colearn.doctor $(ARGS)

clean: ## remove caches and builds
	@rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	@find hf_colearn recipes tests -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv
	@rm -rf $(VENV)

# The registry's torchaudio is compiled for one CUDA build of torch; beside any other torch, its libraries do not load and
# `from transformers import pipeline` fails. The doctor sets them aside and ends the installation where more is wrong.
MEND := $(BIN)/python -m hf_colearn.doctor --fix --quiet

# A stamp is written last, so the next run takes up an installation that was interrupted. torch goes first and alone:
# with it in place, nothing that follows pulls another build of it.
$(VENV)/.torch: constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not found; install Python 3.10 to 3.13, or name one: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 13) else "$(PYTHON) is Python %d.%d, and 3.10 to 3.13 is needed; name another: make PYTHON=python3.12" % v)'
	@echo "Creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing $(TORCH) (once; a CPU build is 0.2 GB, a CUDA build several)"
	@$(PIP) $(TORCH)
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	@echo "Installing hf_colearn and what the demo needs (once, one to three minutes)"
	@$(PIP) --editable '.[demo]'
	@$(MEND)
	@touch $@

$(VENV)/.test: $(VENV)/.torch pyproject.toml
	@echo "Installing hf_colearn, what the demo and the tests need (once, one to three minutes)"
	@$(PIP) --editable '.[demo,test]'
	@$(MEND)
	@touch $(VENV)/.demo $@
