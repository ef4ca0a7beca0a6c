# Two commands are enough on a fresh machine: `make demo` renders a film, `make test` checks everything.

PYTHON ?= python3
BIN := .venv/bin

# Tests start hundreds of processes: without bytecode each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-fast test-tools check format bench clean

demo: .venv/ready
	mkdir -p out
	$(BIN)/longtake render examples/pictures/film.yaml -o out/demo.mp4

# What starts Ray needs both cores for itself; the rest runs on each of two.
# SKIPPED gathers what either run skipped, for the last lines.
test: export SKIPPED := .venv/skipped
test: check
	@rm -f $(SKIPPED)
	$(BIN)/pytest -m "not farm" -n 2 --dist loadfile --no-loadscope-reorder
	$(BIN)/pytest -m farm

test-fast: .venv/ready
	$(BIN)/pytest -m "not farm and not slow and not browser" -n 2 --dist loadfile

# PostgreSQL, Prometheus and Chromium, which tests start for real; without them those tests are skipped.
test-tools:
	.ci/install-test-tools

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/oxlint --deny-warnings --report-unused-disable-directives serving/web

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/ready
	$(BIN)/python -m benchmarks.stitching
	$(BIN)/python -m benchmarks.adherence

# The CPU build of torch is enough for everything here. A machine that has a GPU build installs it before `make`.
.venv/ready: pyproject.toml constraints.txt constraints-cuda.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target .venv/xformers \
		--constraint constraints-cuda.txt xformers triton
	$(BIN)/python tests/charts/get_helm.py .venv/helm
	touch .venv/ready

clean:
	rm -rf .venv out
