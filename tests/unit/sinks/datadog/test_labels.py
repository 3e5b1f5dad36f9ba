"""Tags and names by Datadog's rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellmeter.errors import ConfigError
from tellmeter.sinks.datadog.labels import MOST_TAGS, TAG_BYTES, Labels, clean, listed, namespaced, tag
from tests.support.datadog import TAG
from tests.unit.sinks.made import record, records


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("DD_TAGS", "DD_SERVICE", "DD_ENV", "DD_VERSION"):
        monkeypatch.delenv(name, raising=False)


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_texts_become_a_tag_that_datadog_leaves_as_it_is(name, value):
    made = tag(name, value)
    assert TAG.fullmatch(made) and len(made.encode()) <= TAG_BYTES and "__" not in made
    assert made == made.lower() == clean(made)
    assert ":" in made
    assert not set(made) & set("|#,@\n")


@pytest.mark.parametrize(
    ("name", "value", "made"),
    [
        ("model", "GPT-4o Mini", "model:gpt-4o_mini"),
        ("model", "anthropic/claude:beta", "model:anthropic/claude:beta"),
        ("Feature Flag", "a,b|c#d", "feature_flag:a_b_c_d"),
        ("a:b", "c", "a_b:c"),
        ("1st", "x", "tag_1st:x"),
        ("model", "", "model:unknown"),
        ("model", "😀", "model:unknown"),
        ("model", "日本語", "model:日本語"),
        ("m", "x" * 300, "m:" + "x" * 198),
        ("m", "é" * 300, "m:" + "é" * 99),
        ("m", "a__b__", "m:a_b"),
    ],
)
def test_tags_as_datadog_would_write_them(name, value, made):
    assert tag(name, value) == made


def test_a_record_has_the_tags_of_the_guide_and_those_chosen():
    labels = Labels(["team:Search", "blue"], ["feature", "tenant"], ("shop", "prod", None))
    assert set(labels.of(record(status="error", error_class="RateLimitError", tags={"feature": "Chat", "x": "y"}))) == {
        "provider:openai",
        "model:gpt-4o",
        "operation:chat",
        "status:error",
        "error:ratelimiterror",
        "error_category:unknown",
        "feature:chat",
        "team:search",
        "blue",
        "service:shop",
        "env:prod",
    }
    assert "error" not in {one.partition(":")[0] for one in labels.of(record())}


def test_the_environment_is_asked_for_what_is_not_given(monkeypatch):
    monkeypatch.setenv("DD_TAGS", "team:search, zone:a cell:b")
    monkeypatch.setenv("DD_SERVICE", "shop")
    monkeypatch.setenv("DD_ENV", "prod")
    monkeypatch.setenv("DD_VERSION", "1.2.3")
    assert set(Labels(None, ()).constant) == {
        "team:search",
        "zone:a",
        "cell:b",
        "service:shop",
        "env:prod",
        "version:1.2.3",
    }
    assert Labels([], (), ("", "", "")).constant == ()


@given(st.lists(records, max_size=8))
def test_equal_records_have_equal_tags_and_they_are_clean(batch):
    labels = Labels([], ["a", "日本"])
    for one in batch:
        tags = labels.of(one)
        assert tags == Labels([], ["a", "日本"]).of(one)
        assert all(TAG.fullmatch(each) for each in tags)
        assert len(tags) <= MOST_TAGS


def test_what_is_remembered_is_bounded():
    labels = Labels([], ["n"])
    for number in range(10_000):
        labels.of(record(tags={"n": str(number)}))
    assert len(labels._known) <= 4096


@pytest.mark.parametrize(
    ("tags", "names", "told"),
    [
        ("team:a", (), "tags"),
        (["", "a:b"], (), "tags"),
        ([5], (), "tags"),
        (["1:2", "😀"], (), "no tag"),
        ([], "feature", "tag_names"),
        ([], ["model"], "model"),
        (["team:a"], ["Team"], "Team"),
        ([], ["a b", "a_b"], "a_b"),
        ([f"t{number}:x" for number in range(MOST_TAGS)], (), "at most"),
    ],
)
def test_tags_that_cannot_be_are_refused(tags, names, told):
    with pytest.raises(ConfigError, match=told):
        Labels(tags, names)


@pytest.mark.parametrize("namespace", ["", "1llm", "llm.", "a b", "ü", "a..b", "x" * 101, None, 5])
def test_a_namespace_that_cannot_begin_a_name_is_refused(namespace):
    with pytest.raises(ConfigError, match="namespace"):
        namespaced(namespace)
    assert namespaced("shop.llm") == "shop.llm."


def test_lists_in_urls():
    assert listed("team:a, zone:b,") == ["team:a", "zone:b"]
    with pytest.raises(ValueError, match="commas"):
        listed(" , ")
