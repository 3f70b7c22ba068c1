# Family Plans. Everything runs through .venv, which the first command makes; `make help` lists all.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Named by the process id of this make, so that two of them do not stop each other.
RUNNING := $(VENV)/running.$(shell echo $$PPID)

.DEFAULT_GOAL := help
.PHONY: help run test lint bench schema messages serve lock FORCE

# DEBUG is off unless somebody says so: these are for development, and say so.
run $(RUNNING) test lint bench schema messages: export DEBUG = true

help:  ## list the commands
	@sed -n 's/^\([a-z]*\):.*  ## /make \1\t/p' Makefile

run: $(RUNNING)  ## start everything for development, with demo data: http://127.0.0.1:8000/

# make deletes the file it was making when it is interrupted, also when only make gets the
# signal: that is how the server learns of it.
$(RUNNING): $(VENV)/installed-base FORCE
	@exec $(BIN)/python manage.py demo_server --while-exists $@

test: $(VENV)/installed-dev  ## run all tests
	@$(BIN)/pytest -n auto --dist loadgroup $(PYTEST_ARGS)

lint: $(VENV)/installed-dev  ## check style, types, who imports whom and what is required
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict config graphql_api plans zammad tests .ci/*.py
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/deptry . --exclude '\.venv|tests/benchmarks/rivals' --requirements-files requirements/dev.in --ignore DEP002
	$(BIN)/bandit -q -ll -ii -r config graphql_api plans zammad

bench: $(VENV)/installed-dev  ## measure the service beside others (needs PostgreSQL and wrk): BENCH_ARGS="--help"
	@$(BIN)/python -m tests.benchmarks $(BENCH_ARGS)

schema: $(VENV)/installed-base  ## write graphql_api/schema.graphql, and the codes in docs/api.md
	$(BIN)/python manage.py export_schema graphql_api.schema:schema --path graphql_api/schema.graphql
	$(BIN)/python manage.py shell --no-imports <.ci/write_codes.py

messages: $(VENV)/installed-base  ## gather what people read into the catalogues, and compile them; needs gettext
	$(BIN)/python manage.py makemessages --locale de --no-location --no-obsolete --ignore=tests
	$(BIN)/python manage.py compilemessages --ignore=$(VENV)

serve: export DEBUG = false
serve: $(VENV)/installed-base  ## start the production server, configured by the environment
	@exec $(BIN)/python manage.py serve

lock: $(VENV)/installed-dev  ## lock the newest versions that requirements/*.in allow
	$(BIN)/uv pip compile --universal --generate-hashes --upgrade --python-version 3.11 -o requirements/base.txt requirements/base.in
	$(BIN)/uv pip compile --universal --generate-hashes --upgrade --python-version 3.11 -o requirements/dev.txt -c requirements/base.txt requirements/dev.in
	$(BIN)/uv pip compile --universal --generate-hashes --upgrade --python-version 3.12 --no-python-downloads -o requirements/newest-django.txt requirements/newest-django.in

# It replaces a part of dev.txt.
$(VENV)/installed-newest-django: $(VENV)/installed-dev

$(VENV)/installed-%: requirements/%.txt requirements/install.py
	@command -v $(PYTHON) >/dev/null || { echo "Family Plans needs Python 3.11 or later: name one with make PYTHON=..."; exit 1; }
	@$(PYTHON) requirements/install.py $(VENV) $<
	@touch $@
