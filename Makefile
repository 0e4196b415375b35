# Everything the README promises; `make demo` and `make test` need nothing before them.
PYTHON ?= python3
BIN := .venv/bin
LOWEST := .venv-lowest

.PHONY: install demo test test-lowest main-jobs-lowest lint docs bench clean

install: .venv/.installed  ## the virtual environment, with what a user needs

# A GPU gains nothing by images so small, and two workers would ask for two.
demo: install  ## the main job on bundled data: a small sweep, confirmed on fresh seeds, its winner tested
	$(BIN)/darkroom sweep digits/cnn --workers $$($(PYTHON) -c 'import os; print(min(2, os.cpu_count()))') --trainer.accelerator=cpu

test: .venv/.installed-dev  ## all tests but the slow ones and those that need a GPU
	$(BIN)/python -m pytest -m "not slow and not gpu" --numprocesses 3 --dist loadfile --no-loadscope-reorder

test-lowest: $(LOWEST)/.installed-dev  ## the same at the lowest versions that pyproject.toml admits
	$(LOWEST)/bin/python -m pytest -m "not slow and not gpu" --numprocesses 3 --dist loadfile --no-loadscope-reorder

JOBS := cd $(LOWEST)/jobs && ../bin/darkroom
TINY := --trainer.max_epochs=2 --trainer.accelerator=cpu

main-jobs-lowest: $(LOWEST)/.installed  ## train, compare, evaluate and sweep there, without any extra
	rm -rf $(LOWEST)/jobs && mkdir $(LOWEST)/jobs
	$(JOBS) train digits/cnn $(TINY) --mlflow.run_name=first
	$(JOBS) train digits/cnn $(TINY) --mlflow.run_name=second --seed=1 --model.dropout=0.5
	$(JOBS) compare first second
	$(JOBS) evaluate first
	$(JOBS) sweep digits/cnn $(TINY) --trials 2 --workers 2

lint: .venv/.installed-dev  ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/.installed-dev  ## the documentation as a site, docs/_build/html; any broken link or reference fails
	$(BIN)/sphinx-build -q -n -W --keep-going docs docs/_build/html

bench: install  ## speed against the alternatives, as ratios: all benchmarks that need no GPU
	$(BIN)/python tests/benchmarks

clean:  ## removes the environment and caches; recorded runs stay
	rm -rf .venv $(LOWEST) build docs/_build docs/reference/generated *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14), f"Python 3.11 to 3.13 is needed, this is {sys.version}; name one with make PYTHON=python3.12"'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# uv alone resolves to lowest versions. The package is installed before what its tests need, as one resolution
# for both would raise some of its own requirements.
# Without byte code the first training compiles all libraries.
LOWEST_INSTALL := $(LOWEST)/bin/uv pip install --quiet --compile-bytecode --python $(LOWEST)/bin/python --resolution lowest-direct

$(LOWEST)/.installed: pyproject.toml
	rm -rf $(LOWEST)
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST_INSTALL) --editable .
	touch $@

$(LOWEST)/.installed-dev: $(LOWEST)/.installed
	$(LOWEST_INSTALL) --editable '.[dev]'
	touch $@
