# make demo    reward-tune the embedded generator; needs Python 3.10+ and nothing else
# make test    lint, types and the tests that are not marked slow: a quarter of an hour on two cores
# make test-all  lint, types and all tests, as CI does
# make check   lint and types alone
# make fix     format, and mend what ruff can mend
# make sbom    a bill of materials of the environment: build/sbom.json (CycloneDX)
# make audit   known vulnerabilities of the pinned packages, where the advisories can be reached
# make clean   remove .venv and the tools' caches; runs stay
#
# make PYTHON=/path/to/python3 ...   the interpreter for a new virtual environment
# make VENV=DIR ...                  another place for it than .venv
# make demo RUN=runs/mine            another run folder
# make test TESTS=tests/rewards      some of the tests

VENV ?= .venv
RUN ?= runs/tiny-demo
TESTS ?= tests
JOBS ?= 2

ifdef PYTHON
export PYTHON
endif

.PHONY: help demo test test-all check fix sbom audit clean environment environment-test lint types

help:
	@sed -n 's/^# \{0,1\}//p' Makefile

demo: environment
	@sh scripts/demo.sh $(VENV)/bin/reward-tuning $(RUN)

test: check
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile -m "not slow" $(TESTS)

test-all: check
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(JOBS) --dist loadfile $(TESTS)

check: lint types

lint: environment-test
	$(VENV)/bin/python -m ruff check
	$(VENV)/bin/python -m ruff format --check

types: environment-test
	$(VENV)/bin/python -m mypy

fix: environment-test
	$(VENV)/bin/python -m ruff format
	$(VENV)/bin/python -m ruff check --fix

sbom: environment-test
	@$(VENV)/bin/python -m scripts.sbom --output build/sbom.json

audit: environment
	@$(VENV)/bin/python scripts/audit.py

environment:
	@sh scripts/environment.sh $(VENV) run

environment-test:
	@sh scripts/environment.sh $(VENV) test

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
