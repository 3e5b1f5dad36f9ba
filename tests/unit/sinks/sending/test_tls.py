"""Contexts; what they refuse in earnest is in tests/faults/test_tls.py."""

from __future__ import annotations

import ssl

import pytest
import trustme

from tellmeter.errors import ConfigError
from tellmeter.sinks.sending.tls import tls_context


def test_by_default_certificates_and_names_are_checked():
    context = tls_context(None, verify=True)
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_the_version_does_not_depend_on_the_system(monkeypatch):
    lax = ssl.create_default_context()
    lax.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    monkeypatch.setattr("httpcore2.default_ssl_context", lambda: lax)
    assert tls_context(None, verify=True).minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_file_of_authorities_is_trusted_alone(tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for path in (tmp_path / "ca.pem", str(tmp_path / "ca.pem")):
        context = tls_context(path, verify=True)
        assert len(context.get_ca_certs()) == 1
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_without_verification_only_the_version_is_left():
    context = tls_context(None, verify=False)
    assert context.verify_mode == ssl.CERT_NONE
    assert not context.check_hostname
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_what_is_no_file_of_authorities_is_refused(tmp_path, content):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        tls_context(path, verify=True)
