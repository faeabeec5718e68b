# Every task, the same here and in CI. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup demo up test test-fast test-pythons test-long soak coverage check docs docs-build page-images images test-containers sbom dist bench bench-gpu pack-gpu perf weights stand-ins lock clean

PYTHON ?=
VENV := .venv
# test workers: live servers keep one busy, exports another; tests that wait leave their core to the other two
WORKERS ?= 4
PARALLEL := -n $(WORKERS) --dist loadgroup --no-loadscope-reorder
FAST_TESTS := tests/lipsync tests/avatar tests/client tests/gateway tests/test_public_api.py tests/test_imports.py
PY := $(VENV)/bin/python
STAMP := $(VENV)/.complete
# Where the shell forbids bytecode, each of the hundreds of processes that the tests start would compile its packages again
unexport PYTHONDONTWRITEBYTECODE

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): requirements.lock pyproject.toml scripts/setup.sh scripts/install_perf_analyzer.py
	@PYTHON="$(PYTHON)" VENV="$(VENV)" bash scripts/setup.sh
	@touch $@

setup: $(STAMP)  ## make the environment in .venv (CPU torch; TORCH_INDEX= for the CUDA one)

demo: $(STAMP)  ## a portrait and a recording in, out/demo.mp4 and out/demo.png out
	@$(PY) -m demo $(DEMO)

up: $(STAMP)  ## PostgreSQL, Triton and the gateway in the foreground, until Ctrl-C; UP="--port 9000" for options (UP=--help)
	@$(PY) -m demo up $(UP)

test: $(STAMP)  ## the test suite, live Triton included, on four workers; TESTS=path for a part of it
	@$(PY) -m pytest -m "not slow" $(PARALLEL) $(TESTS)

test-fast: $(STAMP)  ## the part without Triton and exports: two minutes
	@$(PY) -m pytest -m "not (slow or live or exports)" $(PARALLEL) $(FAST_TESTS)

test-pythons:  ## the fast part on every other Python that is found (3.12, 3.13), and on 3.12, that of NVIDIA's image, every model live
	@bash scripts/test_pythons.sh

test-long: $(STAMP)  ## what takes minutes: int8 exports, ten-minute clips, 200 streams (about 40 minutes)
	@$(PY) -m pytest -m slow
	@AVATAR_TEST_SECONDS=600 $(PY) -m pytest -s tests/avatar/pipeline/test_av_sync.py tests/avatar/pipeline/test_memory.py
	@AVATAR_TEST_STREAMS=200 $(PY) -m pytest tests/e2e/test_many_streams.py

soak: $(STAMP)  ## half an hour of callers while processes are killed; SOAK="--forms 500 --restarts 20" for forms only
	@mkdir -p build
	@$(PY) -m tests.soak --report build/soak.md $(SOAK)

coverage: $(STAMP)  ## the test suite under coverage.py, its processes included; the report is in build/coverage
	@rm -rf build/coverage
	@$(PY) -m coverage run -m pytest -m "not slow" $(PARALLEL) $(TESTS)
	@$(PY) -m coverage combine --quiet
	@$(PY) -m coverage html --quiet --directory build/coverage/html --fail-under 0
	@$(PY) -m coverage report --skip-covered

# the slowest part first, two at a time: one core checks types while the other does the rest
CHECKS := check-types check-types-image check-style check-generated check-types-client docs-build check-deploy
.PHONY: $(CHECKS)
check: $(STAMP)  ## lint, layers, types, spelling, workflows, generated configs and tables, the documentation site, deploy/
	@$(MAKE) --no-print-directory -j2 --output-sync=target $(CHECKS)

check-types: $(STAMP)
	@$(PY) -m mypy

check-types-client: $(STAMP)  # on the oldest Python of its callers
	@$(PY) -m mypy --python-version 3.10 --follow-imports silent client/avatar_client

check-types-image: $(STAMP)  # on the Python of NVIDIA's image
	@$(PY) -m mypy --python-version 3.12 --follow-imports silent lipsync avatar embedded embedded/backends/openvino/model.py

check-style: $(STAMP)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(VENV)/bin/lint-imports --no-cache --no-logo
	@$(VENV)/bin/typos
	@$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml

check-generated: $(STAMP)
	@$(PY) -m export configs --check
	@$(PY) scripts/generate_doc_tables.py --check
	@$(PY) -m bench perf-inputs --check

check-deploy: $(STAMP)  ## the Helm chart against the schemas of Kubernetes, and Envoy's configuration (a few seconds)
	@$(PY) -m scripts.check_deploy

docs: $(STAMP)  ## the documentation site on http://127.0.0.1:8100, rebuilt when a page changes
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs serve

docs-build: $(STAMP)  ## the documentation site into build/site, every warning an error
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict  # not --quiet: that hides the warnings that have to fail

page-images: $(STAMP)  ## the pictures of the page in docs/images, from the service that `make up` runs; URL=http://host:port/ for another
	@$(PY) -m scripts.page_images $(if $(URL),--url $(URL))

images:  ## the three Docker images, by docker compose
	@AVATAR_REVISION=$$(git rev-parse HEAD) docker compose --profile gpu build

test-containers: $(STAMP)  ## build, run, break and restart the containers with a Docker of its own (root, Debian, 20 GB, 20 minutes)
	@$(PY) -m scripts.containers $(CONTAINERS)

sbom: $(STAMP)  ## bills of materials (CycloneDX) of the images' Python packages, into build/sbom
	@test -x build/sbom-tool/bin/cyclonedx-py || { $(PY) -m venv build/sbom-tool \
		&& build/sbom-tool/bin/python -m pip install --quiet --constraint requirements.lock --requirement scripts/sbom-requirements.txt; }
	@$(PY) -m scripts.sbom build/sbom-tool/bin/cyclonedx-py build/sbom

dist: $(STAMP)  ## wheels and source distributions of the service, the client and the adapters, into dist/
	@rm -rf dist
	@for package in . client integrations/livekit integrations/pipecat; do \
		$(PY) -m build --no-isolation --outdir dist $$package || exit; done

bench-gpu: $(STAMP)  ## every figure of this machine's GPU in at most 25 minutes; URL=host:port for a running server; GPU="--device cpu --quick"
	@$(PY) -m bench gpu $(if $(URL),--url $(URL)) $(GPU)

pack-gpu: $(STAMP)  ## what that needs on a bare machine with a GPU and no network, in one archive under 60 MB
	@$(PY) -m scripts.pack_gpu $(PACK)

bench: $(STAMP)  ## this service against the original algorithm, on this machine
	@$(PY) -m bench

perf: $(STAMP)  ## perf_analyzer on every model, gRPC with and without shared memory; URL=host:port for a running server
	@$(PY) -m bench perf $(if $(URL),--url $(URL)) $(PERF)

weights: $(STAMP)  ## download the published weights into weights/: shows their license, and asks
	@$(PY) -m export weights --dir weights

stand-ins: $(STAMP)  ## stand-in checkpoints into weights/stand-ins
	@$(PY) -m export stand-ins --weights weights/stand-ins

lock: $(STAMP)  ## write requirements.lock from what is installed in .venv
	@$(PY) scripts/lock.py

clean:  ## remove what was generated; .venv and weights stay
	rm -rf build dist out .pytest_cache .mypy_cache .ruff_cache
