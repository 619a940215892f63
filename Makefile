# Every target works on a machine with Python >= 3.11, its pip, and make: what it needs is
# installed into .venv once, and again when one of the files that say what changes.

PYTHON ?= python3
BIN = .venv/bin
OLDEST = .venv-oldest/bin

# One thread: more of them slow small matrices down, and the tests run in two processes already.
ONE_THREAD = OMP_NUM_THREADS=1

.PHONY: demo test lint bench docs test-oldest

demo: .venv/.installed
	$(ONE_THREAD) $(BIN)/python examples/demo.py

# SCIPY_ARRAY_API lets scikit-learn's array API checks run; tests/conftest.py fails their skips.
test: .venv/.installed
	$(ONE_THREAD) SCIPY_ARRAY_API=1 $(BIN)/python -m pytest -n 2

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.installed-bench
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

# The pages, with the gallery's examples run, are in build/docs/index.html.
docs: .venv/.installed-docs
	$(ONE_THREAD) $(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs

test-oldest: .venv-oldest/.installed
	$(ONE_THREAD) $(OLDEST)/python -m pytest -n 2

# Debian's Python has no pip to give to a virtual environment, so ours installs into it.
.venv/.installed: constraints.txt setup.cfg pyproject.toml
	$(PYTHON) -m venv --without-pip .venv
	$(PYTHON) -m pip --python $(BIN)/python install --quiet -c constraints.txt pip -e '.[test,lint]'
	touch $@

.venv/.installed-bench: .venv/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	touch $@

.venv/.installed-docs: .venv/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@

# The floors that setup.cfg promises, torch's excepted, with a polars that still shows its columns'
# names to scikit-learn 1.6.
FLOORS = scikit-learn|numpy|scipy|joblib|pandas

.venv-oldest/.installed: constraints.txt setup.cfg pyproject.toml
	$(PYTHON) -m venv --without-pip .venv-oldest
	grep -vE '^($(FLOORS)|polars.*)==' constraints.txt > .venv-oldest/constraints.txt
	sed -nE 's/^ +($(FLOORS))>=(.*)/\1==\2.*/p' setup.cfg >> .venv-oldest/constraints.txt
	echo 'polars==1.*' >> .venv-oldest/constraints.txt
	$(PYTHON) -m pip --python $(OLDEST)/python install --quiet -c .venv-oldest/constraints.txt \
		pip -e '.[test]'
	touch $@
