# Two commands are enough on a fresh machine: `make demo` renders a film, `make test` checks everything.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-fast check format bench clean

demo: .venv/ready
	mkdir -p out
	$(BIN)/longtake render examples/demo.yaml -o out/demo.mp4

# What starts farms and renders films needs both cores for itself; the rest runs on each of two.
test: check
	$(BIN)/pytest -m "not slow" -n 2 --dist loadfile
	$(BIN)/pytest -m slow

test-fast: .venv/ready
	$(BIN)/pytest -m "not slow and not browser" -n 2 --dist loadfile

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

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
