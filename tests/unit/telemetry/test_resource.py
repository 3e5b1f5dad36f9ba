"""The resource: who exports, by the convention, with and without OpenTelemetry."""

import os
import socket
import uuid

from tellmeter.telemetry.resource import resource_attributes, sdk_resource
from tellmeter.telemetry.settings import TelemetrySettings


def of(**environ):
    return TelemetrySettings.from_env(environ)


def test_the_settings_become_attributes_of_the_convention():
    found = resource_attributes(
        of(
            OTEL_SERVICE_NAME="shop",
            OTEL_SERVICE_VERSION="1.2",
            OTEL_SERVICE_NAMESPACE="web",
            DEPLOYMENT_ENV="production",
            POD_NAME="shop-1",
            POD_NAMESPACE="shops",
            OTEL_RESOURCE_ATTRIBUTES="team=a%20b",
        )
    )
    assert found["service.name"] == "shop"
    assert found["service.version"] == "1.2"
    assert found["service.namespace"] == "web"
    assert found["deployment.environment.name"] == "production"
    assert found["k8s.pod.name"] == "shop-1"
    assert found["k8s.namespace.name"] == "shops"
    assert found["team"] == "a b"
    assert found["host.name"] == socket.gethostname()
    assert found["process.pid"] == os.getpid()


def test_what_nobody_said_is_not_made_up():
    found = resource_attributes(of())
    assert found["service.name"] == "unknown_service"
    assert uuid.UUID(found["service.instance.id"])
    assert not {"service.version", "deployment.environment.name", "k8s.pod.name"} & set(found)


def test_who_says_which_instance_it_is_is_that_one():
    assert resource_attributes(of(OTEL_RESOURCE_ATTRIBUTES="service.instance.id=7"))["service.instance.id"] == "7"


def test_the_sdks_resource_has_the_same_and_what_its_detectors_find(monkeypatch):
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=a")
    monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "os")
    settings = TelemetrySettings.from_env(service_name="shop")
    found = dict(sdk_resource(settings).attributes)
    plain = resource_attributes(settings)
    assert {**found, "service.instance.id": 0} | {**plain, "service.instance.id": 0} == {
        **found,
        "service.instance.id": 0,
    }
    assert found["telemetry.sdk.name"] == "opentelemetry"
    assert found["os.type"]


def test_the_sdks_resource_at_the_exit_where_no_thread_starts(monkeypatch):
    from opentelemetry.sdk.resources import Resource

    def refuse(attributes=None, schema_url=None):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(Resource, "create", staticmethod(refuse))
    found = sdk_resource(of(OTEL_SERVICE_NAME="shop"))
    assert found.attributes["service.name"] == "shop"
