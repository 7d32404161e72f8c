# The two commands of the README are `make demo` and `make test`; each does all of its own set-up first.
PYTHON_VENV = .venv/bin/python

.PHONY: help demo test lint screenshots setup clean

help:
	@echo "make demo    particles -> RELION -> the five phases of gmmhet in a Scipion project (sets everything up first)"
	@echo "make test    the tests (sets everything up first); make test ARGS='-k name' passes arguments to pytest"
	@echo "make lint    ruff on everything, mypy on the engine"
	@echo "make screenshots   the pictures of the tutorial, made again from the demo's project in Scipion's window"
	@echo "make setup   only the set-up: Debian packages, .venv, Scipion's configuration"
	@echo "make clean   removes what demo and tests wrote; .venv stays"

setup:
	@bash tools/setup.sh

demo: setup
	@$(PYTHON_VENV) tools/demo.py $(ARGS)

# a file of tests at a time on every core, on four at most: each takes a few GB
test: setup
	@$(PYTHON_VENV) -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: setup
	@$(PYTHON_VENV) -m ruff check .
	@$(PYTHON_VENV) -m mypy

screenshots: setup
	@$(PYTHON_VENV) tools/screenshots.py

clean:
	rm -rf demo_out test_out build dist .pytest_cache .mypy_cache .ruff_cache
