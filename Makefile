# samgate: `make serve` and `make test` set up everything they need.

PYTHON ?= python3
ENGINE ?= auto
VARIANTS ?= mobilesam,mobilesam-768,mobilesam-512
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet install --constraint deploy/constraints.txt
BUILD_INPUTS := pyproject.toml deploy/constraints.txt service/samgate/_build.py $(wildcard protos/samgate/v1/*.proto)

.PHONY: help serve install test test-full test-images lint format bench capacity soak chaos audit licences clean
.DEFAULT_GOAL := help

help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

serve: $(VENV)/.installed  ## serve MobileSAM on 127.0.0.1:50051; with ENGINE=triton on a Triton; flags in ARGS="--port 50052"
	@exec $(BIN)/samgate serve --pull --engine $(ENGINE) --variants $(VARIANTS) $(ARGS)

install: $(VENV)/.installed  ## .venv alone

test: $(VENV)/.developed  ## all tests; some of them in ARGS="tests/unit -k queue"
	$(BIN)/pytest $(ARGS)

# Whole ViT-H goes to pieces in the heap otherwise: 3 GiB that are never given back.
test-full: $(VENV)/.developed  ## the tests of whole networks that `make test` has small: up to an hour and 8 GiB
	MALLOC_MMAP_THRESHOLD_=4194304 $(BIN)/pytest -m full $(ARGS)

test-images: $(VENV)/.developed  ## as root, the images' commands in clean root folders; weights in ARGS="--weights DIR"
	PYTHONPATH=tests $(BIN)/python tests/rehearse_images.py $(ARGS)

lint: $(VENV)/.developed  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.developed  ## rewrite the code in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.developed  ## measure here and write docs/benchmarks.md
	$(BIN)/samgate bench $(ARGS)

capacity: $(VENV)/.loadtest  ## the highest rate that a server answers on time; flags in ARGS="SegAnyWarm --start 20"
	@exec $(BIN)/python -m loadtest.capacity $(ARGS)

soak: $(VENV)/.developed  ## half an hour of mixed load, judged; shorter with ARGS="--minutes 2"
	$(BIN)/python -m loadtest.reliability.soak $(ARGS)

chaos: $(VENV)/.developed  ## faults under load, judged; some of them with ARGS="--only triton-killed,slow-clients"
	$(BIN)/python -m loadtest.reliability.chaos $(ARGS)

audit: .venv-audit/.installed  ## known vulnerabilities in the pinned versions
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement deploy/constraints.txt

licences: $(VENV)/.developed .venv-audit/.installed  ## write docs/licences.md
	@{ echo "# Licences"; echo; echo "Every distribution that tests and development install, by \`make licences\`."; echo; \
		.venv-audit/bin/pip-licenses --python $(BIN)/python --from mixed --format markdown --order name --with-system; } | sed "s/+cpu /     /" > docs/licences.md

clean:  ## remove .venv and what builds and tests left
	rm -rf $(VENV) .venv-upstream .venv-audit .tools build .mypy_cache .ruff_cache .pytest_cache .hypothesis service/samgate.egg-info
	rm -f service/samgate/api/v1/*_pb2*

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "samgate needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "no venv module: try 'apt-get install python3-venv'" >&2; exit 1; }

# torch goes first and alone, in the one version that the exports were checked with.
$(VENV)/.installed: $(BIN)/python $(BUILD_INPUTS)
	@echo "installing samgate into $(VENV) …"
	@$(subst --quiet,,$(PIP)) torch==2.13.0
	@$(PIP) --editable '.[compile,triton,plots]'
	@touch $@

$(VENV)/.loadtest: $(VENV)/.installed
	@$(PIP) --editable '.[loadtest]'
	@touch $@

$(VENV)/.developed: $(VENV)/.installed
	@$(PIP) --editable '.[dev]'
	@touch $@

# Apart from what it looks at.
.venv-audit/.installed:
	@$(PYTHON) -m venv .venv-audit
	@.venv-audit/bin/pip --disable-pip-version-check --quiet install pip-audit==2.10.1 pip-licenses==5.5.5
	@touch $@
