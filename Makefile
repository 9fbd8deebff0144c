# make demo        everything from installation to detections on real digits, with a report
# make robustness  GAP against GCP on corrupted digits, with a table and a plot
# make test        lint and tests                      (FAMILY=openmmlab: on OpenMMLab's own packages)
# make faults      killed, full, lost: what is injected into runs and data, and what comes of it
# make install     the virtual environment alone
PYTHON ?= python3
FAMILY ?= onedl
VENV ?= .venv-$(FAMILY)

.PHONY: demo robustness faults test test-slow lint install

demo: install
	$(VENV)/bin/python tools/demo.py

robustness: install
	$(VENV)/bin/python tools/digits_robustness.py

faults: install
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --tables \
		tests/test_faults.py tests/test_processes.py tests/test_bad_*.py

test: lint
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: install
	$(VENV)/bin/python -m pytest -m slow

lint: install
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check

install: $(VENV)/installed

$(VENV)/installed: tools/install.py requirements/$(FAMILY).txt setup.py
	$(PYTHON) tools/install.py --family $(FAMILY) --venv $(VENV)
	touch $@
