# make demo        everything from installation to detections on real digits, with a report
# make robustness  GAP against GCP on corrupted digits, with a table and a plot
# make test        lint and tests
# make faults      kills, full disks, lost processes and bad data: tables of what was injected
# make matrix      the tests with other versions and builds of OpenMMLab's packages
# make install     the virtual environment alone
PYTHON ?= python3
VENV ?= .venv

.PHONY: demo robustness faults test test-slow matrix lint install

demo: install
	$(VENV)/bin/python tools/demo.py

robustness: install
	$(VENV)/bin/python tools/digits_robustness.py

faults: install
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --tables \
		tests/integration/test_faults.py tests/integration/test_processes.py \
		tests/unit/checks/test_bad_annotations.py tests/integration/test_bad_folders.py \
		tests/unit/data/test_bad_images.py

test: lint
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: install
	$(VENV)/bin/python -m pytest -m slow

matrix: install
	$(VENV)/bin/tox

lint: install
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check

install: $(VENV)/installed

CHECK = import sys; v = sys.version_info[:2]; (3, 10) <= v <= (3, 13) or sys.exit( \
	f'Python 3.10 to 3.13 is needed, and $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.12 ...')

$(VENV)/installed: requirements/constraints.txt setup.py
	@$(PYTHON) -c "$(CHECK)"
	@test ! -e $(VENV) || test -f $(VENV)/pyvenv.cfg || \
		{ echo '$(VENV) is no virtual environment: name another, make VENV=...'; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/pip install --only-binary :all: --constraint requirements/constraints.txt \
		--editable '.[mm,export,robustness,test]'
	touch $@
