import io
import os
import socket
import stat
import time

import pytest

from tellmeter.sinks.cloudwatch.targets import FileTarget, StreamTarget, TCPTarget, UDPTarget
from tests.support.ports import free_port
from tests.unit.sinks.made import deadline

LINES = [b'{"a": 1}\n', b'{"b": 2}\n']


@pytest.fixture
def agent():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def received_by(connection, size):
    data = b""
    while len(data) < size:
        more = connection.recv(65536)
        if not more:
            break
        data += more
    return data


def test_a_stream_gets_one_write():
    stream = io.StringIO()
    assert StreamTarget(stream).write(LINES, deadline()) == 2
    assert stream.getvalue() == '{"a": 1}\n{"b": 2}\n'


def test_standard_output_is_the_one_of_the_time(capsys):
    target = StreamTarget()
    target.write(LINES, deadline())
    assert capsys.readouterr().out == '{"a": 1}\n{"b": 2}\n'


def test_what_a_stream_cannot_encode_is_replaced():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii")
    StreamTarget(stream).write(['{"a": "é"}\n'.encode()], deadline())
    assert raw.getvalue() == b'{"a": "?"}\n'


def test_a_stream_that_is_closed_or_missing(monkeypatch):
    closed = io.StringIO()
    closed.close()
    with pytest.raises(ValueError):
        StreamTarget(closed).write(LINES, deadline())
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(ValueError):
        StreamTarget().write(LINES, deadline())


def test_a_file_is_appended_to_and_may_be_moved_away(tmp_path):
    path = tmp_path / "new" / "emf.log"
    target = FileTarget(path)
    assert target.write(LINES, deadline()) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.rename(tmp_path / "moved")
    assert target.write(LINES[:1], deadline()) == 1
    assert (path.read_bytes(), (tmp_path / "moved").read_bytes()) == (LINES[0], b"".join(LINES))


def test_a_torn_line_is_ended_first(tmp_path):
    path = tmp_path / "emf.log"
    path.write_bytes(b'{"tor')
    FileTarget(path).write(LINES, deadline())
    assert path.read_bytes() == b'{"tor\n' + b"".join(LINES)


def test_a_short_write_takes_whole_lines(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:12]))
    assert FileTarget(tmp_path / "emf.log").write(LINES, deadline()) == 1


def test_tcp_keeps_its_connection(agent):
    target = TCPTarget(*agent.getsockname())
    assert target.write(LINES, deadline()) == 2
    connection, _ = agent.accept()
    with connection:
        target.write(LINES, deadline())
        assert received_by(connection, 36) == b"".join(LINES * 2)
        target.close()
        assert connection.recv(10) == b""
    target.close()


def test_tcp_connects_anew_where_the_agent_went_away(agent):
    target = TCPTarget(*agent.getsockname())
    target.write(LINES, deadline())
    first, _ = agent.accept()
    received_by(first, 18)
    first.close()
    end = time.monotonic() + 30
    agent.settimeout(0.05)
    while True:  # until the end of the first connection has arrived, which takes a moment
        target.write(LINES, deadline())
        try:
            second, _ = agent.accept()
            break
        except TimeoutError:
            assert time.monotonic() < end
    with second:
        assert received_by(second, 18) == b"".join(LINES)
    target.close()


def test_tcp_that_nobody_reads_is_left_at_the_deadline_and_counts_whole_lines(agent):
    target = TCPTarget(*agent.getsockname())
    lines = [b"x" * 999_999 + b"\n"] * 40
    written = target.write(lines, deadline(0.3))
    assert 0 < written < 40
    connection, _ = agent.accept()
    with connection:
        got = received_by(connection, 10**9)  # the connection was closed: what is left is cut off
    assert got.count(b"\n") == written
    with pytest.raises(TimeoutError):
        target.write(LINES, deadline(-1))


def test_tcp_that_refuses():
    with pytest.raises(OSError):
        TCPTarget("127.0.0.1", free_port()).write(LINES, deadline())


def test_udp_sends_a_datagram_for_each_line():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as agent:
        agent.bind(("127.0.0.1", 0))
        agent.settimeout(30)
        target = UDPTarget(*agent.getsockname())
        assert target.write([*LINES, b"x" * 65_507], deadline()) == 3
        assert [agent.recv(70_000) for _ in range(2)] == LINES
        assert len(agent.recv(70_000)) == 65_507
        target.close()
        target.close()


def test_udp_notices_that_nobody_listens():
    target = UDPTarget("127.0.0.1", 1)  # a port that no socket gets by chance
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            target.write(LINES, deadline())
        except OSError:
            break
    else:
        pytest.fail("it never noticed")
