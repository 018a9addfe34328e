# What a developer types. `make` alone lists it. Environments are made when they are needed and kept: `.venv` runs the
# proxy, `.venv-test` holds the built wheel and what tests it, `.venv-dev` holds the tools that look at the source,
# `.venv-bench` what is measured beside it and what draws the figures.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:
.PHONY: help run test soak check fuzz bench bench-quick bench-policy bench-shape bench-usage load profile docs wheel format clean debian-packages node-packages
.PHONY: environment-run environment-test environment-dev environment-bench bench-packages
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
ARGS ?=
SECONDS ?= 30
JOBS ?= $(shell nproc)
TARGETS ?= $(filter-out run __init__,$(basename $(notdir $(wildcard fuzz/*.py))))

RUN := .venv/bin
TEST := .venv-test/bin
DEV := .venv-dev/bin
BENCH := .venv-bench/bin
# The tests run where no `trioproxy` and no `auth` can be imported but those of the wheel.
STAGE := build/test
STAGED := .ci tests fuzz docs pyproject.toml Makefile README.md CHANGELOG.md SECURITY.md LICENSE
PURE := */trioproxy/protocol/*,*/trioproxy/policy/*,*/trioproxy/sniff/*,*/auth/*,trioproxy/protocol/*,trioproxy/policy/*,trioproxy/sniff/*,auth/*

help: ## list what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24
	printf '%s\n' '' 'PYTHON=python3.12 selects another interpreter; `make clean` removes all that these have made.'

run: environment-run ## start the proxy: make run ARGS="--config site.toml"
	@exec $(RUN)/trioproxy serve $(ARGS)

test: debian-packages environment-test node-packages ## test the built wheel: all of it, or make test ARGS="tests/policy -x"
	@rm -rf $(STAGE)
	mkdir -p $(STAGE)
	tar -c --exclude=__pycache__ --exclude=docs/_build $(STAGED) | tar -x -C $(STAGE)
	cd $(STAGE)
	TRIOPROXY_TEST_WHEEL=1 ../../$(TEST)/python -m pytest -n $(JOBS) -p no:cacheprovider -o faulthandler_timeout=120 \
	    $(if $(ARGS),$(ARGS),--cov --cov-report= tests)
	[ -n "$(ARGS)" ] || { cd ../..; $(MAKE) coverage; }

.PHONY: coverage
coverage:
	@$(TEST)/coverage combine --quiet --keep $(STAGE)/.coverage
	$(TEST)/coverage report --fail-under=96
	echo 'Protocol, policy, sniff and auth must be covered whole, lines and branches:'
	$(TEST)/coverage report --include='$(PURE)' --fail-under=100

soak: ## the same with the large numbers of the case list: 1 GiB relayed, 20,000 resets, 500 associations; some minutes
	@TRIOPROXY_SOAK=1 $(MAKE) test ARGS="-o faulthandler_timeout=1800 tests/test_session_relay.py tests/test_session_connect.py tests/test_session_udp_load.py"

check: environment-dev wheel ## linters, formatting, types, layers, contents of the wheel
	@failed=
	look() { echo "-- $$1"; "$(DEV)/$$@" || failed="$$failed $$1"; }
	look ruff check --quiet .
	look ruff format --check --quiet .
	look mypy
	PYTHONPATH=. look lint-imports --no-cache
	look check-wheel-contents dist
	[ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

format: environment-dev ## put the source into shape
	@$(DEV)/ruff format .
	$(DEV)/ruff check --fix .

fuzz: environment-dev ## run each fuzz target: make fuzz SECONDS=600 TARGETS="rule_text udp_datagram" JOBS=2
	@mkdir -p build/fuzz
	printf '%s\n' $(TARGETS) | xargs -P $(JOBS) -I{} .ci/fuzz-target {} $(SECONDS) $(DEV)/python build/fuzz

bench: bench-packages environment-bench ## compare with Dante, microsocks and pproxy: 15 minutes; make bench ARGS="--help"
	@exec $(BENCH)/python -m tests.bench $(ARGS)

bench-quick: bench-packages environment-bench ## the same once, with short runs: rough figures within 3 minutes
	@exec $(BENCH)/python -m tests.bench --rounds 1 --seconds 0.7 --quick $(ARGS)

load: bench-packages environment-bench ## 1,000 new sessions a second, and 9,000 idle ones, for a minute each
	@exec $(BENCH)/python -m tests.bench.load_tests $(ARGS)

profile: environment-bench ## where the time of a new session goes; needs a C compiler
	@exec $(BENCH)/python -m tests.bench.profile $(ARGS)

bench-policy: environment-dev ## measure how long a verdict takes
	@PYTHONPATH=. $(DEV)/python -m tests.bench_policy $(ARGS)

bench-shape: environment-dev ## measure what shaping 1,000 flows costs for each byte; a few minutes
	@PYTHONPATH=. $(DEV)/python -m tests.bench.shaped $(ARGS)

bench-usage: environment-dev ## measure how long reports over a million sums take
	@PYTHONPATH=. $(DEV)/python -m tests.bench_usage $(ARGS)

docs: environment-dev ## build docs/_build/html; a warning is an error
	@$(DEV)/python -m sphinx --fresh-env --write-all --fail-on-warning --keep-going --quiet docs docs/_build/html
	echo "docs/_build/html/index.html"

wheel: environment-dev ## build dist/*.whl
	@rm -rf dist
	$(DEV)/python -m pip -qq wheel --no-deps --wheel-dir dist .
	ls dist/*.whl

debian-packages: ## what the system tests need: installed as root, otherwise named
	@.ci/debian-packages tests/system/debian-packages.txt

bench-packages: ## what the comparison measures and needs: installed as root, otherwise named
	@.ci/debian-packages tests/bench/debian-packages.txt

clean: ## remove environments and everything built; keeps your users and rules
	@rm -rf .venv .venv-test .venv-dev .venv-bench build dist docs/_build tests/system/node/node_modules .coverage* crash-* \
	    .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

environment-run:
	@$(PYTHON) .ci/environment.py .venv --editable

environment-dev:
	@$(PYTHON) .ci/environment.py .venv-dev --group check --group docs --group fuzz --group test

environment-bench:
	@$(PYTHON) .ci/environment.py .venv-bench --group bench

# The wheel is installed anew each time, over its dependencies and the tools that stay.
environment-test: wheel
	@$(PYTHON) .ci/environment.py .venv-test --group fuzz --group test
	$(TEST)/python -m pip -qq install --force-reinstall --no-deps dist/*.whl
	$(TEST)/python -m pip check

node-packages: tests/system/node/node_modules/.package-lock.json

tests/system/node/node_modules/.package-lock.json: tests/system/node/package-lock.json
	@cd tests/system/node
	npm ci --silent --no-audit --no-fund --ignore-scripts
	touch node_modules/.package-lock.json
