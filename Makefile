# make lab    the course in JupyterLab          make test   everything CI runs
# Both install what they need into .venv first. Another Python: make lab PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Both cores: a file of tests, or a notebook, is run by one of two workers, and each has one thread.
# The notebooks come first, for the longest should not be begun last.
WORKERS := 2
SIDE_BY_SIDE := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
NBVAL := --nbval-lax --nbval-cell-timeout=600
HERE := $(BIN)/python -m pytest $(NBVAL) --nbval-current-env
# What drives a browser or looks at the clock needs the machine for itself.
ALONE := browser or timing
# Older kernels, each an environment that holds only what differs: one without subshells, and Colab's versions
KERNELS := $(VENV)/kernels
ON_COLAB = JUPYTER_PATH="$(CURDIR)/$(KERNELS)/colab/share/jupyter" $(BIN)/python -m pytest $(SIDE_BY_SIDE) $(NBVAL) --nbval-kernel-name=colab
VIEWS_ON_COLAB = $(KERNELS)/colab/bin/python -m pytest $(SIDE_BY_SIDE) -m "not slow" tests/live tests/views

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export PIP_ROOT_USER_ACTION = ignore
export PIP_PROGRESS_BAR = off
# a thread a process: two of them fill two cores, and sums are always cut the same way
test test-full test-colab: export OMP_NUM_THREADS = 1

.DEFAULT_GOAL := help
.PHONY: help lab test test-full test-colab kernels lint notebooks small-models chromium clean

help:
	@echo "make lab           install, then open the notebooks in JupyterLab"
	@echo "make test          install, lint, unit tests, notebooks (nbval), wheel, browser; then some of it at Colab's versions"
	@echo "make test-full     the same with the tests marked slow"
	@echo "make test-colab    every notebook in a kernel of Colab's versions (make test runs two of them there)"
	@echo "make lint          ruff, and mypy on the core"
	@echo "make notebooks     run notebooks/*.py and keep their outputs in the .ipynb files"
	@echo "make small-models  make models by the recipe, from nothing (some two hours on 2 cores)"
	@echo "make clean         remove .venv and caches (build/ keeps what small-models can resume)"

# torch goes first and alone: with an exact version there, no later range can pull in another build of it.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sdpo_lab needs Python 3.11 or newer, this is %d.%d; name one: make PYTHON=python3.12" % sys.version_info[:2])'
	@echo "installing into $(VENV): a few minutes the first time"
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -qq -c constraints.txt torch hatchling
	@$(BIN)/python -m pip install -qq -c constraints.txt --no-build-isolation -e '.[all]'
	@$(BIN)/python -m pip install -qq -c constraints.txt reasoning-gym 2>/dev/null || \
	    echo "without the tasks of reasoning-gym: one of its needs is built with a C compiler, and that did not work here"
	@touch $@

# Outputs of a notebook that is not trusted are shown without scripts and SVG; these are the repository's own.
# Without a screen the server only prints its address. Jupyter refuses to serve root unless told to.
lab: $(STAMP)
	@screen=; root=; \
	if [ "$$(uname)" = Linux ] && [ -z "$$DISPLAY$$WAYLAND_DISPLAY" ]; then \
	    screen=--no-browser; echo "no screen here: open the address that JupyterLab prints below in a browser"; fi; \
	if [ "$$(id -u)" = 0 ]; then root=--allow-root; fi; \
	$(BIN)/jupyter trust notebooks/*.ipynb >/dev/null; \
	exec $(BIN)/jupyter lab $$screen $$root --ServerApp.root_dir=notebooks --LabApp.default_url=/lab/tree/00_quickstart.ipynb

test: $(STAMP) kernels chromium lint
	$(HERE) $(SIDE_BY_SIDE) -m "not slow and not ($(ALONE))" notebooks tests
	$(HERE) -m "not slow and ($(ALONE))" tests
	$(VIEWS_ON_COLAB)
	$(ON_COLAB) notebooks/00_quickstart.ipynb notebooks/05_live_training.ipynb

test-full: $(STAMP) kernels chromium lint
	$(HERE) $(SIDE_BY_SIDE) -m "not ($(ALONE))" notebooks tests
	$(HERE) -m "$(ALONE)" tests
	$(VIEWS_ON_COLAB)
	$(ON_COLAB) notebooks

test-colab: $(STAMP) kernels
	$(VIEWS_ON_COLAB)
	$(ON_COLAB) notebooks

kernels: $(KERNELS)/ipykernel6/.installed $(KERNELS)/colab/.installed

$(KERNELS)/%/.installed: constraints-%.txt tools/kernels.py | $(STAMP)
	@echo "installing into $(KERNELS)/$*: a minute the first time"
	@$(BIN)/python tools/kernels.py $*
	@touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy

notebooks: $(STAMP)
	$(BIN)/python tools/notebooks.py build

small-models: $(STAMP)
	$(BIN)/python -m small_models.make

chromium:
	@sh tools/install_chromium.sh

clean:
	rm -rf $(VENV) dist .pytest_cache .ruff_cache .mypy_cache .hypothesis test-output
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
