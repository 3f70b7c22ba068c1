# Family Plans. Everything runs in .venv, which the first command creates; `make help` lists the commands.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Contains make's process id, so that two of them do not stop each other.
RUNNING := $(VENV)/running.$(shell echo $$PPID)

.DEFAULT_GOAL := help
.PHONY: help run test lint bench schema messages serve lock FORCE

# DEBUG is off by default; these commands are for development.
run $(RUNNING) test lint bench schema messages: export DEBUG = true

help:  ## list the commands
	@sed -n 's/^\([a-z]*\):.*  ## /make \1\t/p' Makefile

run: $(RUNNING)  ## start everything for development, with demo data: http://127.0.0.1:8000/

# An interrupted make deletes its target, even if only make gets the signal: this is how the server notices.
$(RUNNING): $(VENV)/installed-base FORCE
	@exec $(BIN)/python manage.py demo_server --while-exists $@

test: $(VENV)/installed-dev  ## run all tests
	@$(BIN)/pytest -n auto --dist loadgroup $(PYTEST_ARGS)

lint: $(VENV)/installed-dev  ## check style, types, imports and requirements
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict config graphql_api plans zammad tests .ci/*.py
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/deptry . --exclude '\.venv|tests/benchmarks/rivals' --requirements-files requirements/dev.in --ignore DEP002
	$(BIN)/bandit -q -ll -ii -r config graphql_api plans zammad

bench: $(VENV)/installed-dev  ## compare the service's speed with others (needs PostgreSQL and wrk): BENCH_ARGS="--help"
	@$(BIN)/python -m tests.benchmarks $(BENCH_ARGS)

schema: $(VENV)/installed-base  ## write graphql_api/schema.graphql and the codes in docs/api.md
	$(BIN)/python manage.py export_schema graphql_api.schema:schema --path graphql_api/schema.graphql
	$(BIN)/python manage.py shell --no-imports <.ci/write_codes.py

messages: $(VENV)/installed-base  ## update and compile the translation catalogues; needs gettext
	$(BIN)/python manage.py makemessages --locale de --no-location --no-obsolete --ignore=tests
	$(BIN)/python manage.py compilemessages --ignore=$(VENV)

serve: export DEBUG = false
serve: $(VENV)/installed-base  ## start the production server, configured by the environment
	@exec $(BIN)/python manage.py serve

lock: $(VENV)/installed-dev  ## pin the newest versions that requirements/*.in allow
	$(BIN)/uv pip compile --universal --generate-hashes --upgrade --python-version 3.11 -o requirements/base.txt requirements/base.in
	$(BIN)/uv pip compile --universal --generate-hashes --upgrade --python-version 3.11 -o requirements/dev.txt -c requirements/base.txt requirements/dev.in
	$(BIN)/uv pip compile --universal --generate-hashes --upgrade --python-version 3.12 --no-python-downloads -o requirements/newest-django.txt requirements/newest-django.in

# It replaces some packages of dev.txt.
$(VENV)/installed-newest-django: $(VENV)/installed-dev

$(VENV)/installed-%: requirements/%.txt requirements/install.py
	@command -v $(PYTHON) >/dev/null || { echo "Family Plans needs Python 3.11 or later: name one with make PYTHON=..."; exit 1; }
	@$(PYTHON) requirements/install.py $(VENV) $<
	@touch $@
