# make demo    a real application against a local simulator, metered, with a live table (SECONDS=20: ends by itself)
# make test    all tests; those that go through the SDKs again with the SDKs' older, httpx-based releases, others
#              again without OpenTelemetry, and beside other instrumentations
# make check   lint, format, types, floors
# make bench   every benchmark
# make docs    what is made of tables in the code: docs/catalogue.md and the Grafana dashboards
# make lock    requirements/*.txt anew from pyproject.toml
#
# Needs python3 (3.11 or later) and make. What the targets install goes to .venv* and .tools.

SECONDS ?=
PYTHON ?= >=3.11
PYTEST_ARGS ?=

# uv then trusts the certificates that the machine trusts, as pip does.
export UV_SYSTEM_CERTS ?= true

BIN := .venv/bin
LEGACY := .venv-legacy/bin
LOCK := .tools/uv pip compile pyproject.toml --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-header --quiet --upgrade

.PHONY: demo test test-current test-legacy test-telemetry servers check check-lint check-format check-types check-floors bench docs lock clean

demo: .venv/ready
	$(BIN)/tellmeter demo $(if $(SECONDS),--seconds $(SECONDS))

test: test-current test-telemetry

test-current: .venv/ready .venv-legacy/ready .venv-servers/ready .venv-phoenix/ready servers
	$(BIN)/python tools/tests.py $(LEGACY)/python $(PYTEST_ARGS)

test-legacy: .venv-legacy/ready
	$(LEGACY)/python -m pytest -m sdk $(PYTEST_ARGS)

test-telemetry: .venv-telemetry/ready
	.venv-telemetry/bin/python -m pytest tests/real/test_instrumentations.py -q $(PYTEST_ARGS)

servers:
	@tools/servers.sh

check: check-lint check-format check-types check-floors

check-lint: .venv/ready
	$(BIN)/ruff check .

check-format: .venv/ready
	$(BIN)/ruff format --check .

check-types: .venv/ready
	$(BIN)/mypy

check-floors: .venv/ready
	$(BIN)/lint-imports

bench: .venv-bench/ready
	@set -e; for script in benchmarks/*.py; do \
		case $$script in */_*) continue ;; esac; echo "== $$script"; .venv-bench/bin/python $$script; done

docs: .venv/ready
	$(BIN)/python tools/catalogue.py > docs/catalogue.md
	$(BIN)/python tools/grafana.py
	$(BIN)/python tools/kafka_schema.py > docs/kafka.schema.json

lock: .tools/uv
	$(LOCK) --extra demo --group dev -o requirements/dev.txt
	$(LOCK) --group legacy -o requirements/legacy.txt
	$(LOCK) --group bench -o requirements/bench.txt
	$(LOCK) --group servers --prerelease if-necessary-or-explicit -o requirements/servers.txt
	$(LOCK) --group phoenix -o requirements/phoenix.txt
	$(LOCK) --group telemetry -o requirements/telemetry.txt

clean:
	rm -rf .venv .venv-legacy .venv-bench .venv-servers .venv-phoenix .venv-telemetry .tools

.venv/ready: requirements/dev.txt pyproject.toml tools/venv.sh .tools/uv
	tools/venv.sh .venv requirements/dev.txt '$(PYTHON)'

.venv-servers/ready: requirements/servers.txt tools/venv.sh .tools/uv
	tools/venv.sh .venv-servers requirements/servers.txt '$(PYTHON)' bare

.venv-phoenix/ready: requirements/phoenix.txt tools/venv.sh .tools/uv
	tools/venv.sh .venv-phoenix requirements/phoenix.txt '$(PYTHON)' bare

.venv-telemetry/ready: requirements/telemetry.txt pyproject.toml tools/venv.sh .tools/uv
	tools/venv.sh .venv-telemetry requirements/telemetry.txt '$(PYTHON)'

.venv-bench/ready: requirements/bench.txt pyproject.toml tools/venv.sh .tools/uv
	tools/venv.sh .venv-bench requirements/bench.txt '$(PYTHON)'

.venv-legacy/ready: requirements/legacy.txt pyproject.toml tools/venv.sh .tools/uv
	tools/venv.sh .venv-legacy requirements/legacy.txt '$(PYTHON)'

.tools/uv:
	tools/uv.sh .tools
