# make demo   set up and run the quickstart recipe
# make test   set up and run every check that a change must pass
# make test-ray  the tests that need Ray, which is installed for them
# make bench  measure the engines side by side and write docs/BENCHMARKS.md (an hour)
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: demo test lint types unit test-ray bench tiny-chat schema setup clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(PY) || python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	@$(VENV)/bin/batchchat run recipes/quickstart.yaml --show 4

test: lint types unit

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: setup
	$(VENV)/bin/mypy

unit: setup
	$(PY) -m pytest --numprocesses auto --dist worksteal --cov --cov-report=term:skip-covered

test-ray: setup
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[ray]'
	$(PY) -m pytest tests/launch/test_ray.py -rs

bench: setup
	$(PY) -m scripts.benchmarks $(if $(VLLM_PYTHON),--vllm-python $(VLLM_PYTHON))

tiny-chat: setup
	$(PY) -m scripts.tiny_chat

schema: setup
	$(VENV)/bin/batchchat schema --output recipes/recipe.schema.json
	$(VENV)/bin/batchchat schema --markdown --output docs/OPTIONS.md
	$(VENV)/bin/batchchat schema --results --markdown --output docs/OUTPUT.md

clean:
	rm -rf build dist runs .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
