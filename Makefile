# The two commands: `make demo` and `make test`. Each works alone on a fresh machine with Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test nightly soak lint docs package clean

demo: $(VENV)/.installed  ## PPO, PPO-Buffer and PROPS on CartPole, GRPO on a tiny language model, three seeds each
	$(RUN) -m rheostat.cli demo

test: $(VENV)/.installed-test  ## the tests
	$(RUN) -m pytest -n auto

nightly: $(VENV)/.installed-test  ## the slow tests too: learning, crashes
	$(RUN) -m pytest -n auto -m "slow or not slow"

soak: $(VENV)/.installed-test  ## three days' worth of cheap updates of four kinds; memory, descriptors and disk must stay flat (an hour)
	$(RUN) -m tests.soak

lint: $(VENV)/.installed-test  ## style and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

docs: $(VENV)/.installed-docs  ## the documentation site, into site/; warnings are errors; needs no network once installed
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

package: $(VENV)/.installed  ## what an index would get, into dist/, checked
	$(PIP) --editable '.[release]'
	rm -rf dist && $(RUN) -m build && $(RUN) -m twine check --strict dist/*

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --editable '.[test,docs,data,reasoning,math,code,javascript,champ,openenv,peft,gguf,encoder,fleet,textworld,miniwob,offline,agents,images,tensorboard,trackio,wandb,mlflow,tune,fast]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info
