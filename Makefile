# make run    set everything up and serve: port 111 if it may be bound, else 10111
# make test   set everything up and run the whole suite
# make kills  kill a daemon at random moments, a thousand times unless ARGS="--kills N"
# make handovers   hand a daemon over under load, a hundred times unless ARGS="--handovers N"
# make soak   load for an hour unless ARGS="--minutes N", or hostile peers with ARGS=--hostile
# make fuzz   give any bytes to what takes bytes, for a minute each unless ARGS="--seconds N"
# make pages  build the documentation, and check its links and its widths, with Chromium
# make lint | types | docs | bench | clean | help
#
# PYTHON=python3.12   another interpreter (3.11 or newer)
# ARGS="..."          options for twistd portmapd, pytest, the benchmark or the fuzzer

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
SETUP := setup.cfg pyproject.toml

.PHONY: run test kills handovers lint types docs pages bench soak fuzz clean help
.DELETE_ON_ERROR:

run: $(VENV)/installed
	@exec $(BIN)/twistd -n --pidfile= portmapd $(ARGS)

test: $(VENV)/installed-test
	$(BIN)/python -m pytest $(ARGS)

kills: $(VENV)/installed-test
	$(BIN)/python -m tests.support.kills $(ARGS)

handovers: $(VENV)/installed-test
	$(BIN)/python -m tests.support.handovers $(ARGS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/installed-dev
	$(BIN)/mypy
	$(BIN)/pyright

docs: $(VENV)/installed-dev
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build

pages: docs
	$(BIN)/python -m tests.support.pages docs/_build

bench: $(VENV)/installed
	$(BIN)/python -m bench $(ARGS)

soak: $(VENV)/installed-test
	$(BIN)/python -m bench.soak $(ARGS)

fuzz: $(VENV)/installed-dev
	$(BIN)/python -m fuzz $(ARGS)

clean:
	rm -rf $(VENV) build dist bench/build docs/_build _trial_temp* .hypothesis *.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache twisted/plugins/dropin.cache
	rm -rf fuzz/crashes
	find portmapd twisted tests bench fuzz -name __pycache__ -prune -exec rm -rf {} +

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

# What cannot be written is said first: python and pip would blame something else.
define writable
@test -w . && { test ! -e $(VENV) || test -w $(VENV); } || { \
  echo "$(CURDIR) cannot be written: make needs to, for $(VENV); copy the checkout, or be its owner." >&2; \
  exit 1; }
endef

# --clear: a set-up that was cut short, or made by a Python that is gone, leaves nothing behind.
$(BIN)/python:
	$(writable)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "portmapd needs Python 3.11 or newer, and \"$(PYTHON)\" is not." >&2; \
	  echo "Name another one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
	  echo "\"$(PYTHON) -m venv\" failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# twistd writes the plugin cache beside the plugin: warmed here, for later starts may lack the right.
define install
$(writable)
$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.$(1)'
$(BIN)/python -c 'from twisted.plugin import IPlugin, getPlugins; list(getPlugins(IPlugin))'
@touch $@
endef

$(VENV)/installed: $(SETUP) | $(BIN)/python
	$(call install)

$(VENV)/installed-test: $(SETUP) | $(BIN)/python
	$(call install,[test])
	@touch $(VENV)/installed

$(VENV)/installed-dev: $(SETUP) | $(BIN)/python
	$(call install,[dev])
	@touch $(VENV)/installed $(VENV)/installed-test
