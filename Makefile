# `make quickstart` and `make test` set up everything on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/quickstart
TESTS := not long and not slow
SOURCES := bignas_tf export benchmarks docs notebooks tests zoo

.PHONY: quickstart test test-all test-long lint format docs notebooks clean

$(VENV)/.installed: pyproject.toml bignas_tf/__init__.py
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 13) else f"Python 3.10 to 3.13 is needed (make PYTHON=python3.12 ...). Received: {v[0]}.{v[1]}")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# The pip that comes with Python 3.10 does not get to the end of these dependencies.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# Train once, cut four children, ship four TFLite files: on scikit-learn's handwritten digits.
quickstart: $(VENV)/.installed
	rm -rf $(RUN)
	$(BIN)/bignas train --recipe=digits --workdir=$(RUN)
	$(BIN)/bignas select --workdir=$(RUN) --budget=mmacs:0.2,0.4,0.8,1.6 --names=s,m,l,xl \
		--at_least=0.8 --fine_candidates=4 --fine_rounds=1
	$(BIN)/bignas extract --workdir=$(RUN)
	$(BIN)/bignas evaluate --workdir=$(RUN)
	$(BIN)/bignas convert --workdir=$(RUN)
	$(BIN)/bignas benchmark --workdir=$(RUN)
	$(BIN)/bignas report --workdir=$(RUN)
	@echo
	@echo "Four TFLite models and their report:"
	@ls $(RUN)/*.tflite $(RUN)/report.html

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "$(TESTS)"
	# A process has one backend of Keras.
	KERAS_BACKEND=jax $(BIN)/python -m pytest -n 2 --dist loadfile -m "$(TESTS)" tests/jax_backend

test-all:
	$(MAKE) test TESTS="not long"

# Hours; what was converted is not converted again. BIGNAS_CIFAR10=folder:PATH converts trained children.
test-long: $(VENV)/.installed
	BIGNAS_CONVERT_COUNTS=cifar=200,bignas=50 $(BIN)/python -m pytest -m long -s

lint: $(VENV)/.installed
	$(BIN)/ruff format --check --quiet $(SOURCES)
	$(BIN)/ruff check --quiet $(SOURCES)
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

# All cells, in small settings.
notebooks: $(VENV)/.installed
	$(BIN)/python -m pytest -q -n 2 -m long tests/test_notebooks.py

# A link that leads nowhere, or a name of the reference that is not there, ends it.
docs: $(VENV)/.installed
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf $(VENV) build dist *.egg-info docs/_build
