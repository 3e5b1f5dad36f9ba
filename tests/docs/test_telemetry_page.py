"""docs/telemetry.md: what the guide of telemetry shows is on it, and its tables say what the code does."""

import re
from pathlib import Path

import pytest

from tellmeter.config import MetricsConfig
from tellmeter.telemetry import request_attributes
from tellmeter.telemetry.llm_attributes import ended_attributes
from tellmeter.telemetry.otlp_settings import ARGUMENTS
from tellmeter.telemetry.settings import _FIELDS, ATTRIBUTES, TelemetrySettings
from tests.support.exchanges import SHARED, need_shared
from tests.support.varied import varied

PAGE = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text("utf-8")
GUIDE = SHARED / "seeds" / "003_e1ea7cb610df1312.txt"
_IMPORTS = re.compile(r"^(from .* import \((.|\n)*?^\)|(from|import) .*)$", re.MULTILINE)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Of its blocks, the first of each kind being 0: those about telemetry and tracing. The others are about metrics alone.
TOLD = {"python": (0, 6, 7, 8, 13, 14, 15, 16), "bash": (1, 2, 3, 4), "yaml": (0,)}
# The one block that stands in a function here: it awaits, and httpx.get is no coroutine.
OTHERWISE = {"response = await httpx.get(url, headers=headers)": "return await client.get(url, headers=headers)"}


def lines(text):
    """The lines of code, without imports; ends that are a matter of format are cut off. Our service is a shop."""
    code = _IMPORTS.sub("", text).replace("tldw_server", "shop").split("\n")
    return [line for line in (re.sub(r"(,|  # Prometheus endpoint)$", "", line.strip()) for line in code) if line]


@pytest.mark.parametrize(("kind", "number"), [(kind, number) for kind, numbers in TOLD.items() for number in numbers])
def test_a_block_of_the_guide_is_on_the_page(kind, number):
    need_shared(GUIDE)
    block = [text for word, text in _BLOCK.findall(GUIDE.read_text("utf-8")) if word == kind][number]
    shown = {line for word, text in _BLOCK.findall(PAGE) if word == kind for line in lines(text)}
    shown |= set(re.findall(r"`(curl [^`]*)`", PAGE))
    assert not [line for line in lines(block) if OTHERWISE.get(line, line) not in shown]


def rows():
    """What stands between backticks, by the row of the table of settings."""
    table = PAGE[PAGE.index("| argument |") :]
    return [line.split("|")[1:-1] for line in table[: table.index("\n\n")].split("\n")[2:]]


def words(cell):
    return re.findall(r"`([^`]+)`", cell)


def test_every_setting_is_in_the_table_with_its_variables():
    told = {name: {*words(row[1]), *words(row[2])} for row in rows() for name in words(row[0])}
    assert set(told) == {*_FIELDS, *ARGUMENTS}
    assert {"traces", "metrics", *_FIELDS} == set(TelemetrySettings.__struct_fields__)
    assert not [name for name, field in _FIELDS.items() if not told[name].issuperset(field.variables)]


def test_the_defaults_in_the_table_are_those_of_the_settings():
    told = {name: row[3].strip() for row in rows() for name in words(row[0])}
    known = TelemetrySettings()
    assert told["max_spans"].startswith(f"{known.max_spans:,}") and told["span_batch_size"] == str(
        known.span_batch_size
    )
    assert told["span_delay_ms"] == f"{known.span_delay_ms:,.0f} ms"
    assert told["metrics_interval_ms"] == f"{known.metrics_interval_ms:,.0f} ms"
    for name in ("traces_exporters", "metrics_exporters"):
        assert told[name].startswith(getattr(known, name)[0])
    for name in ("sampler", "metrics_temporality", "trace_calls"):
        assert told[name].startswith(getattr(known, name))


def test_every_attribute_of_a_call_is_in_the_table():
    told = set()
    for row in re.findall(r"^\| (`.*) \| [^|]* \|$", PAGE[PAGE.index("| attributes |") :], re.MULTILINE):
        space = ""
        for name in words(row):  # `.top_k` is in the namespace of the one before it
            space = space if name.startswith(".") else name.rpartition(".")[0]
            told.add(space + name if name.startswith(".") else name)
    made = {name for one in varied(500) for name in ended_attributes(one, MetricsConfig(), "id")}
    made = {re.sub(r"^tellmeter\.(tags|estimated)\..*", r"tellmeter.\1.*", name) for name in made}
    assert {"gen_ai.response.id", "tellmeter.cost_usd", "error.type", "tellmeter.estimated.*"} <= made
    assert made - {"tellmeter.estimated.*"} <= told
    assert set(request_attributes._NAMES) <= told


def test_the_resources_attributes_are_on_the_page():
    assert not [name for name in (*ATTRIBUTES.values(), "service.instance.id") if f"`{name}`" not in PAGE]


def test_headings_that_are_linked_to_are_there():
    headings = re.findall(r"^##+ (.*)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    linked = set(re.findall(r"\]\(#([\w-]+)\)", PAGE))
    assert linked and linked <= anchors
