# Two commands: `make train` sets up and runs the main job, `make test` sets up and passes the tests.
PYTHON ?= python3
VENV ?= .venv
# Packages of further Keras backends to install and test, such as "jax torch".
BACKENDS ?=
# SLOW=1 runs the tests marked slow too.
SLOW ?=
TRAIN ?= --embedding full,hash,qr --collisions 4

.PHONY: train test lint clean

train: $(VENV)/.train
	$(VENV)/bin/tf-compemb train $(TRAIN)

test: $(VENV)/.test
	$(VENV)/bin/python tests/every_runtime.py $(if $(SLOW),--slow)

lint: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.train: setup.cfg pyproject.toml | $(VENV)/bin/pip
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable ".[train]"
	touch $@

$(VENV)/.test: setup.cfg pyproject.toml | $(VENV)/bin/pip
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable ".[train,serving,dev]" $(BACKENDS)
	touch $@

clean:
	rm -rf $(VENV) runs build dist *.egg-info
