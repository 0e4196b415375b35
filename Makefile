# Everything the README promises; `make demo` and `make test` need nothing before them.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test lint bench clean

install: .venv/.installed  ## the virtual environment, with what a user needs

# A GPU gains nothing by images so small, and two workers would ask for two.
demo: install  ## the main job on bundled data: a small sweep, confirmed on fresh seeds, its winner tested
	$(BIN)/darkroom sweep digits/cnn --workers $$($(PYTHON) -c 'import os; print(min(2, os.cpu_count()))') --trainer.accelerator=cpu

test: .venv/.installed-dev  ## all tests but the slow ones and those that need a GPU
	$(BIN)/python -m pytest -m "not slow and not gpu" --numprocesses 3 --dist loadfile --no-loadscope-reorder

lint: .venv/.installed-dev  ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install  ## speed against the alternatives, as ratios: all benchmarks that need no GPU
	$(BIN)/python tests/benchmarks

clean:  ## removes the environment and caches; recorded runs stay
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14), f"Python 3.11 to 3.13 is needed, this is {sys.version}; name one with make PYTHON=python3.12"'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
