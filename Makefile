# Two commands do everything on a fresh machine:
#   make demo   make .venv, install, and edit a shipped picture with a published method, offline, on the CPU
#   make test   make .venv, install with the developers' tools, and run all checks and tests
#
# With an NVIDIA GPU:  make demo TORCH_INDEX=https://download.pytorch.org/whl/cu130

PYTHON ?= python3
VENV ?= .venv
# PyTorch's index of CPU builds: the default index would bring gigabytes of CUDA to a machine that has no GPU.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# The import checker reads folders, and does not know that nodes/ and graphs/ are packages inside graphflow.
define LINKS
import pathlib, shutil
farm = pathlib.Path("build/links"); shutil.rmtree(farm, ignore_errors=True); (farm / "graphflow").mkdir(parents=True)
for entry in [*pathlib.Path("graphflow").iterdir(), pathlib.Path("nodes"), pathlib.Path("graphs")]:
    (farm / "graphflow" / entry.name).symlink_to(entry.resolve())
endef
export LINKS

.PHONY: demo test check docs clean

demo: $(VENV)/.demo
	$(BIN)/graphflow run pix2pix_on_the_fly --out out/demo
	@echo
	@echo "before   $(CURDIR)/graphs/pictures/cat.png"
	@echo "after    $(CURDIR)/out/demo/image.png"
	@echo "report   $(CURDIR)/out/demo/report.html"

test: $(VENV)/.test check
	$(BIN)/python -m pytest

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -c "$$LINKS"
	cd build/links && $(CURDIR)/$(BIN)/lint-imports --config $(CURDIR)/pyproject.toml --no-cache

# The generated part of the docs; a test holds it to the code.
docs: $(VENV)/.demo
	$(BIN)/graphflow nodes --format markdown > docs/nodes.md

clean:
	rm -rf $(VENV) out runs build *.egg-info

# --no-deps: the CPU index holds torch, its dependencies come from the default index with the package.
# An unreachable index is no error as long as pip finds the pinned build elsewhere, in a local folder for example.
$(VENV)/.torch: constraints/cpu.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --no-deps --retries 0 --index-url $(TORCH_INDEX) -c constraints/cpu.txt torch
	touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml setup.py
	$(PIP) install --quiet -c constraints/cpu.txt -e ".[diffusion]"
	touch $@

# torchvision comes from torch's index where that can be reached. The build of the default index wants CUDA; beside a
# CPU-only torch its C++ library does not load, which graphflow.nodes knows how to live with.
$(VENV)/.test: $(VENV)/.torch pyproject.toml setup.py
	$(PIP) install --quiet --no-deps --retries 0 --index-url $(TORCH_INDEX) -c constraints/cpu.txt torchvision || true
	$(PIP) install --quiet -c constraints/cpu.txt -e ".[diffusion,metrics,datasets,bench,dev]"
	touch $@ $(VENV)/.demo
