import threading
import time

import boto3
import botocore.exceptions
import pytest

from tellmeter.sinks.cloudwatch.client import Connections, make_client, region_of
from tellmeter.testing import Dribble, FaultServer, Hang
from tests.support.cloudwatch import session

DATA = [{"MetricName": "m", "Value": 1.0}]


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.mark.parametrize(
    ("argument", "environment", "region"),
    [
        ("a", {"AWS_REGION": "b"}, "a"),
        (None, {"AWS_REGION": "b", "AWS_DEFAULT_REGION": "c"}, "b"),
        (None, {"AWS_DEFAULT_REGION": "c"}, "c"),
        (None, {}, None),
    ],
)
def test_the_region(monkeypatch, argument, environment, region):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert region_of(argument) == region
    assert make_client(boto3.Session(), None, argument, None, 5.0).meta.region_name == region or "us-east-1"


def test_a_profile_has_a_region(tmp_path):
    (tmp_path / "config").write_text("[profile mine]\nregion = eu-west-3\n", "utf-8")
    assert make_client(None, "mine", None, None, 5.0).meta.region_name == "eu-west-3"
    with pytest.raises(botocore.exceptions.ProfileNotFound):
        make_client(None, "nobodys", None, None, 5.0)


def test_it_tries_once_and_not_for_long():
    config = make_client(session(), None, None, "http://127.0.0.1:1", 2.0).meta.config
    assert config.retries["total_max_attempts"] == 1
    assert (config.connect_timeout, config.read_timeout) == (2.0, 2.0)
    assert make_client(session(), None, None, None, 9.0).meta.config.connect_timeout == 3.0


@pytest.mark.parametrize("fault", [Hang(), Dribble(5.0)], ids=str)
def test_a_connection_that_is_cut_ends_its_thread_at_once(fault):
    with FaultServer(fault) as server:
        client = make_client(session(), None, None, server.url, 100.0)
        connections, errors = Connections(), []
        connections.watch(client)

        def put():
            try:
                client.put_metric_data(Namespace="n", MetricData=DATA)
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=put)
        thread.start()
        server.wait_for(1)
        end = time.monotonic() + 30
        while thread.is_alive() and time.monotonic() < end:
            connections.cut()
            thread.join(0.05)
        assert not thread.is_alive()
        assert len(errors) == 1
        client.close()


def test_what_cannot_be_watched_is_left_alone():
    Connections().watch(object())
    Connections().cut()
