# make demo        everything from installation to detections on real digits, with a report
# make robustness  GAP against GCP on corrupted digits: hours, a part of `make reproduce`
# make reproduce   claims about GAP and GCP, from several seeds: hours (docs/claims.md)
# make test        lint, then unit tests, then integration tests
# make test-slow   the tests that take minutes each
# make coverage    lines and branches of gcp_mm that `make test` reaches
# make faults      kills, full disks, lost processes and bad data: tables of what was injected
# make docs        the documentation site, docs/_build/html
# make matrix      the tests with other versions and builds of OpenMMLab's packages
# make install     the virtual environment alone
PYTHON ?= python3
VENV ?= .venv

PYTEST = OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest
SIDE_BY_SIDE = -n 2 --dist loadfile

.PHONY: demo robustness reproduce faults test test-slow docs coverage matrix lint install

demo: install
	$(VENV)/bin/python tools/demo.py

robustness: install
	$(VENV)/bin/python tools/reproduce.py robustness

reproduce: install
	$(VENV)/bin/python tools/reproduce.py

faults: install
	$(PYTEST) --tables \
		tests/integration/test_faults.py tests/integration/test_processes.py \
		tests/unit/checks/test_bad_annotations.py tests/unit/data/test_load_image.py \
		tests/integration/test_bad_images.py

test: lint
	$(PYTEST) -m "not slow" $(SIDE_BY_SIDE) tests/unit
	$(PYTEST) -m "not slow" $(SIDE_BY_SIDE) tests/integration

test-slow: $(VENV)/docs-installed
	$(PYTEST) -m "slow and not demonstration" $(SIDE_BY_SIDE)

docs: $(VENV)/docs-installed
	OMP_NUM_THREADS=1 PATH="$(abspath $(VENV))/bin:$$PATH" $(VENV)/bin/python -m sphinx -W --keep-going \
		-b html docs docs/_build/html

coverage: install
	$(VENV)/bin/coverage erase
	OMP_NUM_THREADS=1 $(VENV)/bin/coverage run -m pytest -m "not slow" $(SIDE_BY_SIDE)
	$(VENV)/bin/coverage combine -q
	$(VENV)/bin/coverage report

matrix: install
	$(VENV)/bin/tox

lint: install
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/mypy

install: $(VENV)/installed

CHECK = import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 13) or sys.exit( \
	f'Python 3.10 to 3.13 is needed, and $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.12 ...')

$(VENV)/installed: requirements/constraints.txt setup.py
	@$(PYTHON) -c "$(CHECK)"
	@test ! -e $(VENV) || test -f $(VENV)/pyvenv.cfg || \
		{ echo '$(VENV) is no virtual environment: name another, make VENV=...'; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/pip install --only-binary :all: --constraint requirements/constraints.txt \
		--editable '.[mm,export,robustness,landscape,test]'
	touch $@

$(VENV)/docs-installed: $(VENV)/installed
	$(VENV)/bin/pip install --only-binary :all: --constraint requirements/constraints.txt \
		--editable '.[docs]'
	touch $@
