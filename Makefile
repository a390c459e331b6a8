# Every target makes the environment .venv on first use, and again when the requirements change.
# Needed beforehand: make, a POSIX shell, Python 3.11 or newer (PYTHON=/path/to/python chooses one).

VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
TESTS ?= tests
# The first seed of the simulator and how many follow it; `make soak SEED=50000` goes on elsewhere.
# The first thousand are in `make test`.
SEED ?= 1000
SEEDS ?= 10000
# How long the crowd of workers stays.
MINUTES ?= 10
# Through which stores tasks go while coordinators and servers are killed, and how many through each.
STORES ?= valkey redis postgres opensearch elasticsearch valkey-replica opensearch-nodes
TASKS ?= 20000

.DEFAULT_GOAL := help
.PHONY: help demo test check lint style types contracts format bench bench-stores soak soak-stores mutants docs package lock environment clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(READY) ## real work, a killed worker, a restarted coordinator, nothing lost
	$(VENV)/bin/lineshaft demo

# Those that kill and freeze processes come last and one by one: they need the machine for themselves.
test: $(READY) ## every test, and the branch coverage of the core
	@status=0; \
	$(RUN) -m pytest $(TESTS) -m "not faults" -n auto --dist loadfile --cov --cov-report=term-missing:skip-covered \
		|| status=$$?; \
	$(RUN) -m pytest $(TESTS) -m faults || [ $$? -eq 5 ] || status=$$?; \
	exit $$status

check: lint ## what a change must pass before it is committed; in a few minutes
	$(RUN) -m pytest $(TESTS) -m "not slow and not faults" --seeds=10 -q -n auto

lint: style types contracts ## style, types and the direction of imports

style: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(READY)
	$(RUN) -m mypy

contracts: $(READY)
	$(VENV)/bin/lint-imports

format: $(READY) ## bring the code into shape
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: $(READY) ## throughput and latency beside other queues, in ten minutes; BENCH="--only lineshaft --quick" for less
	$(RUN) -m bench $(BENCH)

bench-stores: $(READY) ## the same on every store, beside what else runs on the same servers, in twenty minutes
	$(RUN) -m bench.stores $(BENCH)

soak: $(READY) ## the simulator over many seeds (SEED, SEEDS), a crowd of workers (MINUTES), every store (STORES, TASKS)
	$(RUN) -m tests.simulation --start $(SEED) --seeds $(SEEDS) --keep-going
	$(RUN) -m tests.faults.soak --minutes $(MINUTES)
	$(MAKE) soak-stores

soak-stores: $(READY) ## only the part of `make soak` that kills and freezes coordinators and servers of each store
	for store in $(STORES); do \
		$(RUN) -m tests.cluster.soak --store $$store --tasks $(TASKS) --lot 10 --partitions 3 --seed $(SEED) || exit 1; \
	done

mutants: $(READY) ## break the heart in a hundred ways and see that the tests notice each
	$(RUN) -m tests.mutants

docs: $(READY) ## the documentation site, in build/site
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

package: $(READY) ## the sdist and the wheel, in dist
	rm -rf dist
	$(RUN) -m hatchling build

lock: $(READY) ## pin the newest versions that pyproject.toml allows
	$(RUN) -m pip install --quiet uv
	$(RUN) -m uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate \
		--custom-compile-command "make lock" --quiet --output-file requirements/dev.txt

environment: $(READY) ## only make .venv

$(READY): pyproject.toml requirements/dev.txt tools/environment.sh
	@PYTHON="$(PYTHON)" sh tools/environment.sh
	@touch $@

clean: ## remove the environment and everything that was generated
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf .coverage .coverage.* htmlcov
	find src tests bench examples tools -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
