# Two commands do everything: `make demo` and `make test`. They need Python 3.11 or newer and make; the rest goes into VENV.
#   make test PYTHON=python3.12 VENV=.venv-3.12

VENV ?= .venv
PYTHON ?=
JOBS ?= 5# more than there are cores, because tests of real servers wait
ARGS ?=
HEAVY := $(addprefix tests/test_,learner.py load.py pictures.py soak.py stateful.py)# seconds of nothing but our own machines: not again where only packaging or versions differ

BIN := $(VENV)/bin
RUN := $(BIN)/python -m
COVER ?=# anything: measure coverage, too
UV ?=# a program `uv`: installs in a tenth of pip's time, which takes over where it fails
install = $(if $(UV),$(UV) pip install --quiet --python $(1)/bin/python $(2) || )$(1)/bin/python -m pip install --quiet $(2)
PYTEST := $(RUN) $(if $(COVER),coverage run -m )pytest -n $(JOBS) --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help demo test lint format types cover learn wheel lowest bench bench-goodput bench-sqlite bench-shared parity chaos fuzz docs surface clean
.DELETE_ON_ERROR:

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.has-cli  ## scrape a real rate-limited server: progress bar, summary, picture
	$(BIN)/throttle demo $(ARGS)

test: $(VENV)/.has-test  ## the whole test suite
	$(PYTEST) $(ARGS)

lint: $(VENV)/.has-lint  ## ruff
	$(RUN) ruff check
	$(RUN) ruff format --check throttle/cli examples tests/test_house.py tests/test_surface.py tests/typed_api.py

types: $(VENV)/.has-lint  ## mypy and pyright, both strict
	$(RUN) mypy
	$(RUN) pyright --pythonpath $(BIN)/python

cover: $(VENV)/.has-test  ## the whole test suite, with branch coverage: 100 % of throttle/
	@$(BIN)/python -c 'import sys; sys.version_info < (3, 12) and sys.exit("Python 3.11 loses lines after a coroutine was thrown into: make cover PYTHON=python3.12 VENV=.venv-3.12")'
	rm -f .coverage .coverage.*
	$(MAKE) test COVER=1 ARGS="$(addprefix --ignore=,$(HEAVY) tests/servers)"
	$(MAKE) test ARGS="$(HEAVY) tests/servers"  # they take twice as long when they are watched, and reach no other line
	$(RUN) coverage combine --quiet
	$(RUN) coverage report

learn: $(VENV)/.has-test  ## the learner in thousands of random worlds, and its picture
	LEARN_SEEDS=500 $(PYTEST) -s tests/test_learner.py $(ARGS)
	$(BIN)/python tests/learner_picture.py build/learner.png

wheel: $(VENV)/.has-lint  ## build the wheel, install it in a fresh environment, test it from another directory, types included
	rm -rf dist .venv-wheel
	$(RUN) pip wheel --quiet --no-deps --wheel-dir dist .
	$(BIN)/python -m venv .venv-wheel
	$(call install,.venv-wheel,"$$(echo dist/*.whl)[test]")
	mkdir .venv-wheel/away
	cp -r tests examples docs pyproject.toml README.md .venv-wheel/away
	cd .venv-wheel/away && HYPOTHESIS_PROFILE=quick ../bin/python -m pytest -n $(JOBS) --dist loadgroup -m 'not server' $(HEAVY:%=--ignore=%) tests
	PATH="$(CURDIR)/.venv-wheel/bin:$$PATH" $(RUN) pyright --ignoreexternal --verifytypes throttle

lowest: $(VENV)/.made  ## the suite, heavy tests aside, on the oldest versions that pyproject.toml admits
	rm -rf .venv-lowest
	$(BIN)/python -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip compile --quiet --python .venv-lowest/bin/python --resolution lowest-direct --no-deps \
		--extra cli --extra redis --no-annotate --output-file .venv-lowest/lowest.txt pyproject.toml
	$(call install,.venv-lowest,--constraint .venv-lowest/lowest.txt --editable '.[test]')
	HYPOTHESIS_PROFILE=quick .venv-lowest/bin/python -m pytest -n $(JOBS) --dist loadgroup $(HEAVY:%=--ignore=%) tests

bench: $(VENV)/.has-bench  ## the benchmarks beside the peers of the field; writes benchmarks/RESULTS.md
	$(BIN)/python benchmarks/bench.py $(ARGS)

bench-sqlite: $(VENV)/.has-bench  ## processes that share a limit through SQLite, beside the peer; about 1 minute
	$(BIN)/python benchmarks/sqlite_rows.py $(ARGS)

chaos: $(VENV)/.has-test  ## kill processes and stores that share a limit at random, 60 s each
	$(BIN)/python benchmarks/chaos.py $(ARGS)

bench-shared: $(VENV)/.has-bench $(VENV)/.has-test  ## processes that share a limit through a real Redis and SQLite, beside peers; about 8 minutes; writes benchmarks/SHARED.md
	$(BIN)/python benchmarks/shared.py --markdown benchmarks/SHARED.md $(ARGS)

parity: $(VENV)/.has-test  ## 100,000 random traces: the Lua of the Redis counter decides as the rules do; about 6 minutes
	THROTTLE_TRACES=100000 $(RUN) pytest -q --timeout 3600 tests/test_redis_parity.py

bench-goodput: $(VENV)/.has-bench  ## real rate-limited servers, and how much the clients waste; about 25 minutes
	-cd benchmarks/servers && npm install --silent --no-audit --no-fund --no-package-lock
	$(BIN)/python benchmarks/goodput.py --markdown benchmarks/GOODPUT.md $(ARGS)

fuzz: $(VENV)/.has-test  ## a million random and mutated sets of headers; about 2 minutes
	$(BIN)/python tests/fuzzing.py $(ARGS)

proof: $(VENV)/.has-test  ## stories of lines against the slow reference, tens of thousands of steps of each kind
	HYPOTHESIS_PROFILE=thorough $(PYTEST) --timeout 3600 tests/test_stateful.py tests/algorithms $(ARGS)

soak: $(VENV)/.has-test  ## ten million permits over a simulated week, with cancellations and pauses
	$(BIN)/python tests/soak.py $(ARGS)

mutate: $(VENV)/.has-mutate  ## mutation testing of the pure files; survivors are explained in tests/MUTANTS.md
	rm -rf mutants
	$(BIN)/mutmut run $(ARGS)
	$(BIN)/mutmut results

docs: $(VENV)/.has-docs  ## the documentation, as pages in site/
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict

surface: $(VENV)/.has-test  ## write tests/surface.txt anew from the public names
	$(BIN)/python tests/test_surface.py > .surface.tmp && mv .surface.tmp tests/surface.txt

clean:  ## remove everything that was made
	rm -rf .venv .venv-* build dist site htmlcov .coverage .coverage.* .hypothesis mutants .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment is made once, an extra is installed once, and both anew when pyproject.toml changes.
$(VENV)/.has-%: pyproject.toml $(VENV)/.made
	$(call install,$(VENV),--editable '.[$*]')
	@touch $@

# The first interpreter that is 3.11 or newer and can make an environment: PYTHON, the path's, then pyenv's.
$(VENV)/.made:
	@for python in $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11 python3.14 python \
		"$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.1[1-9]*/bin/python3 /usr/bin/python3.1[1-9] /usr/local/bin/python3.1[1-9]); do \
		if "$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "setting up $(VENV) with $$("$$python" --version)"; \
			rm -rf "$(VENV)" && "$$python" -m venv "$(VENV)" && touch $@ && exit 0; \
			exit 1; \
		fi; \
	done; \
	echo "no Python 3.11 or newer with venv found$(if $(PYTHON), at PYTHON=$(PYTHON)): install one, or say make PYTHON=/path/to/python3.11" >&2; \
	exit 1
