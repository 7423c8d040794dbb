# make run   opens the program        make test   runs the tests        make lint   checks style, types and borders
# make test-gpu   runs one sitting, and the learners' tests, on a CUDA device
# make test-exports   runs TRL and datasets over our exports
# make soak  runs a sitting for minutes or hours, with faults        make lock, audit, sbom, dist, test-install   for releases: docs/releasing.md
# make bench runs the benchmarks      MODEL=… DB=… ARGS=… for `make run`; TORCH=keep uses the torch that is installed already

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH ?= install
MODEL ?= pocket
DB ?=
ARGS ?=
# One more than there are cores: a test that waits for an engine leaves its core idle.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$((n < 4 ? n + 1 : 4)))
STAMP := $(VENV)/.installed-$(TORCH)

.PHONY: run test test-gpu test-exports test-install pocket lint bench soak lock audit sbom dist clean setup

run: $(STAMP)
	@$(BIN)/tamer run $(DB) --model $(MODEL) $(ARGS)

test: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

# One sitting on a CUDA device, and the tests of the learners on it.
test-gpu: $(STAMP)
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then \
		TAMER_TEST_DEVICE=cuda $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/gpu tests/learners --ignore tests/learners/pocket $(ARGS); \
		else echo "no GPU: not run"; fi

# The readers of our exports, TRL and datasets, are large: they are installed by this target alone.
test-exports: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[exports]'
	@HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/exports $(ARGS)

# Train the embedded model again: about an hour on two cores; interrupted, it goes on where it stopped.
pocket: $(STAMP)
	@$(BIN)/python -m learners.pocket.train $(ARGS)

lint: $(STAMP)
	@$(BIN)/ruff check . && $(BIN)/lint-imports && $(BIN)/mypy

bench: $(STAMP)
	@for script in first_paint memory latency; do $(BIN)/python benchmarks/$$script.py || exit 1; done; $(BIN)/python benchmarks/teaching.py bias-25 --seeds 1

# Nothing is lost on a bad day: ARGS="--sets 2000 --faults 100" takes an hour.
soak: $(STAMP)
	@$(BIN)/python -m benchmarks.soak $(ARGS)

# --- releases: docs/releasing.md --------------------------------------------------------------------------------------------

RELEASE := $(VENV)/.installed-release
RUNS := --extra gguf --extra parquet --extra serve --extra web

# Every version that a program runs with, for every system, with the hashes of its files.
lock: $(RELEASE)
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --default-index https://pypi.org/simple \
		-c constraints.txt $(RUNS) pyproject.toml -o requirements.lock

audit: $(RELEASE)
	@$(BIN)/pip-audit --requirement requirements.lock --require-hashes --disable-pip --strict --progress-spinner off || \
		{ echo "the audit did not pass: either it names what is vulnerable above, or it could not ask about a package"; exit 1; }

sbom: $(RELEASE)
	@mkdir -p dist
	@$(BIN)/python -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible --of JSON -o dist/tamer-tui.cdx.json requirements.lock
	@# Our own version is not in pyproject.toml.
	@$(BIN)/python -c 'import json, pathlib, tamer_tui; p = pathlib.Path("dist/tamer-tui.cdx.json"); d = json.loads(p.read_text()); \
		d["metadata"]["component"]["version"] = tamer_tui.__version__; p.write_text(json.dumps(d, indent=1) + "\n")'

dist: $(RELEASE)
	@rm -f dist/*.whl dist/*.tar.gz
	@$(BIN)/python -m build --outdir dist

# The wheel installed with all it needs where there is nothing but Python: by pip, pipx and uv, each anew (1 GB of downloads, more with CUDA).
test-install: dist
	@TAMER_TEST_INSTALL=1 $(BIN)/python -m pytest tests/install $(ARGS)

$(RELEASE): $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[release]'
	@touch $@

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "tamer-tui needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "this Python has no venv: on Debian, apt-get install python3-venv"; exit 1; }
ifeq ($(TORCH),keep)
	@$(PYTHON) -c 'import torch; print("keeping torch", torch.__version__)' 2>/dev/null || \
		{ echo "TORCH=keep, but $(PYTHON) cannot import torch: leave TORCH out, or name another Python with PYTHON=…"; exit 1; }
	@echo "Setting up $(VENV): fetching textual, transformers, peft, bitsandbytes and the rest, about 120 MB. This happens once."
	@test -d $(VENV) || $(PYTHON) -m venv --system-site-packages $(VENV)
	@# A .venv made earlier, or a Python that is itself in a virtual environment, does not see that torch: show it where.
	@$(BIN)/python -c 'import torch' 2>/dev/null || \
		$(PYTHON) -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' \
		> "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/kept-torch.pth"
	@# Pinned to what is there, so that no dependency fetches another one.
	@{ grep -iv '^torch==' constraints.txt; $(BIN)/python -c 'import torch; print("torch==" + torch.__version__)' 2>/dev/null; } \
		> $(VENV)/constraints.txt || { echo "$(VENV) was made with another Python than $(PYTHON): make clean, then again"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(VENV)/constraints.txt -e '.[dev]'
else
	@if test -x $(BIN)/tamer; then echo "Bringing $(VENV) up to date; only what has changed is fetched."; else \
		echo "Setting up $(VENV): fetching PyTorch (about 200 MB where it comes as a CPU build; several GB with CUDA, the usual"; \
		echo "build on Linux x86-64) and textual, transformers, peft, bitsandbytes and the rest (about 120 MB). This happens once;"; \
		echo "TORCH=keep uses the torch that is installed already."; fi
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
endif
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
