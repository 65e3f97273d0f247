# make demo    set up, and run the main job on the data set that we draw
# make test    set up, and pass the tests; ARGS="-k fish -x" goes to pytest
# make env     set up only
# make lint    check the code's style
# make clean   remove what set-up, builds and tests left, but no results
#
# VENV    the environment: made if it is not there, else completed
# PYTHON  the Python that it is made with

VENV ?= .venv
PYTHON ?= python3
ARGS ?=

BIN := $(abspath $(VENV))/bin
PY := $(BIN)/python

.PHONY: demo test env lint clean

# With a PATH: the tools' shell scripts start the `python` that they find.
demo: env
	@PATH="$(BIN):$$PATH" "$(PY)" tools/demo.py $(ARGS)

test: env
	@PATH="$(BIN):$$PATH" "$(PY)" -m pytest $(ARGS)

env:
	@$(PYTHON) tools/setup_env.py "$(VENV)"

lint: env
	@"$(PY)" -m ruff check

# Only .venv: another VENV may be yours.
clean:
	rm -rf .venv .cache build dist *.egg-info mmfishnet/.mim \
	    .pytest_cache .ruff_cache
