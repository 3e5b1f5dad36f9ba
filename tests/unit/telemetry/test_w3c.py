"""The cases of W3C's own test suites (w3c/trace-context, w3c/baggage), and what holds for any text."""

from email.message import Message

import httpx
import pytest
import starlette.datastructures
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.telemetry.w3c import (
    Member,
    TraceParent,
    format_baggage,
    format_traceparent,
    format_tracestate,
    headers_of,
    is_baggage_name,
    parse_baggage,
    parse_traceparent,
    parse_tracestate,
)

ID, PARENT = "12345678901234567890123456789012", "1234567890123456"
GOOD = f"00-{ID}-{PARENT}-01"


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"cc-{ID}-{PARENT}-01",
        f"cc-{ID}-{PARENT}-01-what-the-future-will-be-like",
        f"01-{ID}-{PARENT}-01-",
        f" {GOOD}",
        f"\t{GOOD}",
        f"{GOOD} ",
        f"{GOOD}\t",
        f"\t {GOOD} \t",
    ],
)
def test_valid_traceparents(text):
    assert parse_traceparent(text) == TraceParent(ID, PARENT, 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{GOOD}.",
        f"{GOOD}-what-the-future-will-be-like",
        f"cc-{ID}-{PARENT}-01.what-the-future-will-be-like",
        f"ff-{ID}-{PARENT}-01",
        f".0-{ID}-{PARENT}-01",
        f"0.-{ID}-{PARENT}-01",
        f"000-{ID}-{PARENT}-01",
        f"0000-{ID}-{PARENT}-01",
        f"0-{ID}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-.{ID[1:]}-{PARENT}-01",
        f"00-{ID[:-1]}.-{PARENT}-01",
        f"00-{ID}3-{PARENT}-01",
        f"00-{ID[:-1]}-{PARENT}-01",
        f"00-{ID}-{'0' * 16}-01",
        f"00-{ID}-.{PARENT[1:]}-01",
        f"00-{ID}-{PARENT[:-1]}.-01",
        f"00-{ID}-{PARENT}7-01",
        f"00-{ID}-{PARENT[:-1]}-01",
        f"00-{ID}-{PARENT}-.0",
        f"00-{ID}-{PARENT}-0.",
        f"00-{ID}-{PARENT}-001",
        f"00-{ID}-{PARENT}-1",
        f"00-{'A' * 32}-{PARENT}-01",
        f"00-\u0661{ID[1:]}-{PARENT}-01",
        f"{GOOD},{GOOD}",
        f"{GOOD}\n",
        f"01-{ID}-{PARENT}-01-{'x' * 10_000}",
    ],
)
def test_invalid_traceparents(text):
    assert parse_traceparent(text) is None


@pytest.mark.parametrize(("sent", "passed_on"), [("00", "00"), ("01", "01"), ("02", "02"), ("03", "03"), ("ff", "03")])
def test_only_the_flags_that_are_known_are_passed_on(sent, passed_on):
    parent = parse_traceparent(f"cc-{ID}-{PARENT}-{sent}-more")
    assert format_traceparent(parent) == f"00-{ID}-{PARENT}-{passed_on}"


KEY = "abcdefghijklmnopqrstuvwxyz0123456789_-*/"
VALUE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in ",=")
MANY = [f"bar{number:02}={number:02}" for number in range(1, 34)]


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], {}),
        ([""], {}),
        (["foo=1", ""], {"foo": "1"}),
        (["", "foo=1"], {"foo": "1"}),
        (["foo=1,bar=2", "rojo=1,congo=2", "baz=3"], {"foo": "1", "bar": "2", "rojo": "1", "congo": "2", "baz": "3"}),
        (["foo=1,foo=1"], {}),
        (["foo=1,foo=2"], {}),
        (["foo=1", "foo=1"], {}),
        ([f"{KEY}={VALUE}"], {KEY: VALUE}),
        ([f"{KEY}@a-z0-9_-*/={VALUE}"], {f"{KEY}@a-z0-9_-*/": VALUE}),
        (["foo=1 \t , \t bar=2, \t baz=3"], {"foo": "1", "bar": "2", "baz": "3"}),
        (["\t foo=1 \t"], {"foo": "1"}),
        (["foo =1"], {}),
        (["FOO=1"], {}),
        (["foo.bar=1"], {}),
        (["foo@=1,bar=2"], {}),
        (["@foo=1,bar=2"], {}),
        (["foo@@bar=1,bar=2"], {}),
        (["foo@bar@baz=1,bar=2"], {}),
        (["1foo=1"], {"1foo": "1"}),  # level 2
        (MANY[:32], {f"bar{number:02}": f"{number:02}" for number in range(1, 33)}),
        (MANY, {}),
        (["foo=1", "z" * 256 + "=1"], {"foo": "1", "z" * 256: "1"}),
        (["foo=1", "z" * 257 + "=1"], {}),
        (["foo=1", "t" * 241 + "@" + "v" * 14 + "=1"], {"foo": "1", "t" * 241 + "@" + "v" * 14: "1"}),
        (["foo=1", "t" * 242 + "@v=1"], {}),
        (["foo=1", "t@" + "v" * 15 + "=1"], {}),
        (["foo=bar=baz"], {}),
        (["foo=,bar=3"], {}),
        (["foo=" + "x" * 256], {"foo": "x" * 256}),
        (["foo=" + "x" * 257], {}),
        (["," * 9000], {}),
    ],
)
def test_tracestates(headers, found):
    assert parse_tracestate(headers) == found
    assert list(parse_tracestate(headers)) == list(found)


def test_a_tracestate_that_is_too_long_loses_long_members_first_and_then_the_last_ones():
    states = {"first": "x" * 100, "long": "y" * 200, "second": "x" * 100, "longer": "y" * 250, "third": "x" * 100}
    assert list(parse_tracestate([format_tracestate(states)])) == ["first", "second", "third"]
    assert format_tracestate({"long": "y" * 200, "b": "x" * 100}) == f"long={'y' * 200},b={'x' * 100}"
    short = {f"key{number:02}": "v" * 20 for number in range(32)}
    written = format_tracestate(short)
    assert 512 - 27 < len(written) <= 512
    assert list(parse_tracestate([written])) == list(short)[: len(parse_tracestate([written]))]


LIST = "SomeKey=SomeValue;SomeProp,SomeKey2=SomeValue2;ValueProp=PropVal"
SPREAD = LIST.replace(",", " \t , \t ").replace(";", " \t ; \t ").replace("=", " \t = \t ")
ODD = "\t \"';=asdf!@#$%^&*()"


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], {}),
        (["SomeKey=SomeValue"], {"SomeKey": Member("SomeValue")}),
        ([LIST], {"SomeKey": Member("SomeValue", "SomeProp"), "SomeKey2": Member("SomeValue2", "ValueProp=PropVal")}),
        ([SPREAD], {"SomeKey": Member("SomeValue", "SomeProp"), "SomeKey2": Member("SomeValue2", "ValueProp=PropVal")}),
        (["SomeKey=SomeValue=equals"], {"SomeKey": Member("SomeValue=equals")}),
        (["SomeKey=%09%20%22%27%3B%3Dasdf%21%40%23%24%25%5E%26%2A%28%29"], {"SomeKey": Member(ODD)}),
        (["k=v;SomeProp;SecondProp=PropValue"], {"k": Member("v", "SomeProp;SecondProp=PropValue")}),
        (["userId=alice", "serverNode=DF%2028,isProduction=false"], {"userId": Member("alice"), "serverNode": Member("DF 28"), "isProduction": Member("false")}),
        (["a=1,a=2"], {"a": Member("2")}),
        (["empty="], {"empty": Member("")}),
        (["a=%C3%BC"], {"a": Member("ü")}),
        (["a=%FF"], {"a": Member("\ufffd")}),
        (["a=1+1"], {"a": Member("1+1")}),
        (['good=1,bad,=x,b ad=2,c=ü,d="x",e=1 2,f=1;,g=1;=x,also=2'], {"good": Member("1"), "also": Member("2")}),
        ([f"k{number}=v" for number in range(70)], {f"k{number}": Member("v") for number in range(64)}),
        (["a=" + "x" * 8190], {"a": Member("x" * 8190)}),
        (["a=" + "x" * 8191], {}),
        (["b=1,a=" + "x" * 9000, "c=1"], {"b": Member("1")}),
    ],
)  # fmt: skip
def test_baggages(headers, found):
    assert parse_baggage(headers) == found


def test_what_would_be_over_a_limit_of_baggage_is_not_sent():
    assert format_baggage({"a": Member("0123456789" * 819)}) == "a=" + "0123456789" * 819
    assert format_baggage({"a": Member("x" * 8191), "b": Member("1")}) == "b=1"
    assert format_baggage({f"k{number}": Member("v") for number in range(70)}).count(",") == 63
    assert format_baggage({"not a token": Member("v"), "": Member("v"), "ok": Member("\ud800")}) == "ok=%3F"


@given(
    st.dictionaries(
        st.from_regex(r"[0-9A-Za-z!#$%&'*+\-.^_`|~]{1,20}", fullmatch=True), st.text(max_size=50), max_size=20
    )
)
def test_a_baggage_comes_back_as_it_was_sent(values):
    members = {
        name: Member(value) for name, value in values.items() if not any("\ud800" <= c <= "\udfff" for c in value)
    }
    assert parse_baggage([format_baggage(members)]) == members


KEYS = st.from_regex(r"[a-z][a-z0-9_\-*/]{0,20}(@[a-z][a-z0-9]{0,13})?", fullmatch=True)
VALUES = st.from_regex(r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,10}[\x21-\x2b\x2d-\x3c\x3e-\x7e]", fullmatch=True)


@given(st.dictionaries(KEYS, VALUES.map(lambda value: value.lstrip() or "x"), max_size=9))
def test_a_tracestate_comes_back_as_it_was_sent(states):
    found = parse_tracestate([format_tracestate(states)])
    assert found == states
    assert list(found) == list(states)


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 3))
def test_a_traceparent_comes_back_as_it_was_sent(trace_id, parent_id, flags):
    parent = TraceParent(f"{trace_id:032x}", f"{parent_id:016x}", flags)
    assert parse_traceparent(format_traceparent(parent)) == parent


NEARLY = st.one_of(st.text(), st.text("0123456789abcdef-=,;@% \t\x00ü", max_size=200), st.just(GOOD))


@given(st.lists(NEARLY, max_size=5))
def test_no_header_raises_and_what_is_read_can_be_sent(headers):
    for header in headers:
        parent = parse_traceparent(header)
        assert parent is None or parse_traceparent(format_traceparent(parent)) == parent
    states = parse_tracestate(headers)
    assert parse_tracestate([format_tracestate(states)]).items() <= states.items()
    members = parse_baggage(headers)
    assert all(map(is_baggage_name, members))
    sent = format_baggage(members)
    assert len(sent) <= 8192
    assert parse_baggage([sent]).items() <= members.items()


def email_headers():
    message = Message()
    message["Baggage"] = "a=1"
    message["BAGGAGE"] = "b=2"
    return message


@pytest.mark.parametrize(
    "headers",
    [
        {"BagGage": ["a=1", "b=2"]},
        {b"Baggage": (b"a=1", b"b=2"), 7: "x"},
        [("Baggage", "a=1"), ("other", "x"), ("bAGGAGE", "b=2")],
        [(b"baggage", b"a=1"), (b"baggage", b"b=2")],
        httpx.Headers([("Baggage", "a=1"), ("baggage", "b=2")]),
        starlette.datastructures.Headers(raw=[(b"baggage", b"a=1"), (b"baggage", b"b=2")]),
        starlette.datastructures.MutableHeaders(raw=[(b"baggage", b"a=1"), (b"baggage", b"b=2")]),
        email_headers(),
        {"Baggage": "a=1", "baggage": b"b=2", "BAGGAGE": None},
    ],
    ids=lambda headers: type(headers).__name__,
)
def test_headers_of_all_kinds(headers):
    assert parse_baggage(headers_of(headers)["baggage"]) == {"a": Member("1"), "b": Member("2")}
