# `make demo` and `make test` need Python 3.10 or later, g++ and make; they do the rest of the set-up
# in .venv and build/. A stamp says that a step was done; it lives where the step's result lives, so
# deleting .venv or build/ starts that part again.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
MODELS ?= .models
# The source of xgrammar, as tools/fetch_xgrammar.py leaves it.
XGRAMMAR := .deps/xgrammar-0.2.8/.sha256
# The CUDA back end is compiled, for the H100, where nvcc is; it runs where a GPU is (bench/gpu_check.sh).
NVCC := $(shell command -v nvcc)
CUBLAS := $(if $(NVCC),.deps/cublas-13.1.0.3/.sha256)
CUDA_OPTIONS := $(if $(NVCC),-DOCTAVO_BUILD_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=90a-real)

BIN := $(CURDIR)/$(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check
BUILD := build/wheel
export PATH := $(BIN):$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export OCTAVO_MODELS := $(CURDIR)/$(MODELS)
ifneq ($(shell command -v ccache),)
export CMAKE_CXX_COMPILER_LAUNCHER ?= ccache
endif

STAMPS := $(VENV)/stamps
# Directories are listed too, so that deleting a file counts as a change.
SOURCES := $(shell find cpp cuda python cmake third_party -name __pycache__ -prune -o -print) \
           CMakeLists.txt pyproject.toml VERSION
CXX_FILES = $(shell find cpp cuda tests python bench -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh')
BASE ?= main

.NOTPARALLEL:
.PHONY: help demo test lint format tidy bench build ctest pytest aarch64 clean distclean

help:  ## Lists the targets
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):.*## /\1\t/' | expand -t 12

demo: build  ## Builds, installs into .venv, fetches a small model and generates with it
	@model=$$($(PY) tools/fetch_demo_model.py) && $(PY) examples/demo.py "$$model"

test: lint ctest pytest  ## Lints, runs the C++ and the Python tests

build: $(STAMPS)/package  ## Builds and installs the package into .venv

ctest: build $(CUBLAS)
	cmake --preset wheel $(CUDA_OPTIONS)
	cmake --build $(BUILD)
	ctest --test-dir $(BUILD) --output-on-failure -j 2

pytest: build $(STAMPS)/test
	$(PY) -m pytest

# Debian: apt-get install g++-aarch64-linux-gnu qemu-user
ARM_TOOLS := $(and $(shell command -v qemu-aarch64),$(shell compgen -c aarch64-linux-gnu-g++))
aarch64: $(if $(ARM_TOOLS),$(XGRAMMAR))  ## Cross-compiles the kernels' tests for 64-bit ARM, runs them by qemu
ifeq ($(ARM_TOOLS),)
	@echo "aarch64: skipped, for there is no aarch64-linux-gnu-g++ or no qemu-aarch64"
else
	cmake --preset aarch64
	cmake --build --preset aarch64
	ctest --preset aarch64 -j 2
endif

lint: $(STAMPS)/dev $(STAMPS)/package  ## Checks layers, style, formatting and types
	$(PY) tools/check_layers.py
	$(PY) tools/check_style.py
	clang-format --dry-run -Werror $(CXX_FILES)
	ruff check -q .
	ruff format --check -q .
	mypy

format: $(STAMPS)/dev  ## Formats C++ and Python
	clang-format -i $(CXX_FILES)
	ruff check -q --fix-only .
	ruff format .

tidy: build $(STAMPS)/dev  ## Runs clang-tidy on the C++ sources changed since BASE (main)
	git diff --name-only --diff-filter=d $(BASE) -- '*.cc' | xargs -r clang-tidy -p $(BUILD) --quiet

bench: build  ## Runs the benchmarks in bench/ that need no peers
	@model=$$($(PY) tools/fetch_demo_model.py) && \
	  for file in $(filter-out bench/compare.py,$(wildcard bench/*.py)); do \
	    $(PY) $$file "$$model" || exit 1; done

clean:  ## Removes what was built, not .venv and the models
	rm -rf build dist $(STAMPS)/package

distclean: clean  ## Removes everything that is not in git
	rm -rf $(VENV) $(MODELS) .deps

$(STAMPS)/venv:
	tools/setup_machine.sh $(PYTHON)
	$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

# The build requirements are installed here, so that builds are incremental and need no network.
$(STAMPS)/tools: pyproject.toml | $(STAMPS)/venv
	$(PIP) install -q $$($(PY) tools/list_requirements.py build) "cmake>=3.25" ninja setuptools-scm
	@touch $@

$(XGRAMMAR): tools/fetch_xgrammar.py | $(STAMPS)/tools
	$(PY) tools/fetch_xgrammar.py
	@touch $@

.deps/cublas-13.1.0.3/.sha256: tools/fetch_cublas_headers.py | $(STAMPS)/tools
	$(PY) tools/fetch_cublas_headers.py
	@touch $@

$(STAMPS)/package: $(SOURCES) $(XGRAMMAR) | $(STAMPS)/tools
	@echo "Building and installing octavo (the first time this takes some minutes)"
	$(PIP) install -q --no-build-isolation --config-settings=build-dir=$(BUILD) .
	@touch $@

$(STAMPS)/test: pyproject.toml | $(STAMPS)/package
	$(PIP) install -q $$($(PY) tools/list_requirements.py test)
	@touch $@

$(STAMPS)/dev: pyproject.toml | $(STAMPS)/venv
	$(PIP) install -q $$($(PY) tools/list_requirements.py dev)
	@touch $@
