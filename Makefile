PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help venv test-venv demo check test test-frozen test-browser test-system test-trees bench soak fuzz dist clean

help:
	@echo "make demo | test | check | venv | test-frozen | test-browser | test-system | test-trees | bench | soak | fuzz | dist"

# The stamps hold what was installed: a changed setup.py installs anew.
$(VENV)/.run-stamp: setup.py bin/orion
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[console]'
	$(BIN)/python -m compileall -q orionagent
	@touch $@

$(VENV)/.test-stamp: $(VENV)/.run-stamp
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[console,test]'
	@touch $@

venv: $(VENV)/.run-stamp
test-venv: $(VENV)/.test-stamp

demo: venv
	@$(BIN)/orion demo

check: test-venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Most tests wait for processes, so two lanes side by side take little more than half the time of one.
QUICK := -m 'not browser and not system and not soak'
LANE := tests/faults tests/end_to_end tests/logs tests/packaging

test: test-venv
	@$(MAKE) --no-print-directory -j2 --output-sync=target test-lane test-other-lane

.PHONY: test-lane test-other-lane
test-lane:
	$(BIN)/pytest $(QUICK) $(LANE)
test-other-lane:
	$(BIN)/pytest $(QUICK) $(addprefix --ignore=,$(LANE)) tests

test-browser: test-venv
	@command -v chromium >/dev/null || (apt-get update -qq && apt-get install -qq --no-install-recommends chromium)
	$(BIN)/pytest -m browser

test-system: test-venv build/venv/.stamp
	@test -x /usr/lib/systemd/systemd || (apt-get update -qq && apt-get install -qq --no-install-recommends systemd)
	$(BIN)/pytest -m system

# Every property with forty times as many examples: the journal, the splitter, both framings; some ten minutes.
FUZZ_FACTOR ?= 40
fuzz: test-venv
	FUZZ_FACTOR=$(FUZZ_FACTOR) $(BIN)/pytest -v tests/property tests/logs/test_pile.py

# The release on minimal Debian 11, 12 and 13, fetched from Debian's mirror: two minutes.
test-trees: test-venv build/venv/.stamp
	@command -v debootstrap >/dev/null || (apt-get update -qq && apt-get install -qq --no-install-recommends debootstrap)
	$(BIN)/pytest -m soak tests/packaging/test_trees.py

# An environment without the test tools: what is installed there is what can end up in the release.
build/venv/.stamp: setup.py
	$(PYTHON) -m venv build/venv
	build/venv/bin/pip install --quiet --disable-pip-version-check --editable '.[dist]'
	@touch $@

dist: build/venv/.stamp
	build/venv/bin/python init/freeze.py --out dist

# The whole suite once more, with every module and the program taken from the release.
FROZEN := $(BIN)/python tests/packaging/frozen_suite.py build/freeze/orion-agent-*

test-frozen: test-venv dist
	@$(MAKE) --no-print-directory -j2 --output-sync=target frozen-lane frozen-other-lane

.PHONY: frozen-lane frozen-other-lane
frozen-lane:
	$(FROZEN) $(LANE)
frozen-other-lane:
	$(FROZEN) $(addprefix --ignore=,$(LANE)) tests

# Delivery under kills, faults and load for some twenty minutes; its figures stand in one table at the end.
soak: test-venv
	$(BIN)/pytest -m soak -v tests/faults tests/end_to_end

# The peers that the benchmark runs beside the agent.
$(VENV)-bench/.stamp:
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/pip install --quiet --disable-pip-version-check supervisor circus honcho
	@touch $@

bench: venv $(VENV)-bench/.stamp
	$(BIN)/python -m bench.run $(MEASURES)

clean:
	rm -rf $(VENV) $(VENV)-bench build dist
