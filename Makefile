# make demo    set up, and run the main job on the data set that we draw
# make test    set up, and pass the tests; ARGS="-k fish -x" goes to pytest
# make env     set up only
# make docs    build the documentation, docs/build/html/index.html
# make lint    check the code's style
# make clean   remove what set-up, builds and tests left, but no results
#
# VENV    the environment: made if it is not there, else completed
# PYTHON  the Python that it is made with
# JOBS    test files that run at a time

VENV ?= .venv
PYTHON ?= python3
JOBS ?= 2
ARGS ?=

# Where it is set, each of the many processes would compile torch's and
# MMDetection's sources anew, 17 seconds every time.
unexport PYTHONDONTWRITEBYTECODE

BIN := $(abspath $(VENV))/bin
PY := $(BIN)/python

.PHONY: demo test env docs lint clean

# With a PATH: the tools' shell scripts start the `python` that they find.
demo: env
	@PATH="$(BIN):$$PATH" "$(PY)" tools/demo.py $(ARGS)

# One thread each: two jobs of two threads are slower on two cores.
test:
	@$(PYTHON) tools/setup_env.py "$(VENV)" --tests
	@PATH="$(BIN):$$PATH" OMP_NUM_THREADS=1 "$(PY)" -m pytest \
	    -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

env:
	@$(PYTHON) tools/setup_env.py "$(VENV)"

docs:
	@$(PYTHON) tools/setup_env.py "$(VENV)" --tests
	@"$(PY)" -m sphinx -W --keep-going -q -b html docs docs/build/html
	@echo "docs/build/html/index.html"

# Alone, where the tests are not set up: that takes seconds.
lint:
	@test -x "$(BIN)/ruff" || test -x .cache/ruff/bin/ruff || \
	    { $(PYTHON) -m venv .cache/ruff && \
	      .cache/ruff/bin/python -m pip install -q ruff; }
	@$$(ls "$(BIN)/ruff" .cache/ruff/bin/ruff 2>/dev/null | head -n 1) check

# Only .venv: another VENV may be yours.
clean:
	rm -rf .venv .cache build dist docs/build docs/generated *.egg-info mmfishnet/.mim mmfishnet/configs \
	    .pytest_cache .ruff_cache
