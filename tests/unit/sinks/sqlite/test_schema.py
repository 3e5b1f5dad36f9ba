from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings

from tellmeter.errors import SchemaTooNew, StoreError
from tellmeter.records import AgentMetrics
from tellmeter.sinks.sqlite import schema
from tests.unit.sinks import made
from tests.unit.sinks.made import record

NEXT = """
from tellmeter.sinks.sqlite import schema as schema
schema.MIGRATIONS = (
    *schema.MIGRATIONS,
    ("ALTER TABLE llm_metrics ADD COLUMN region TEXT", "UPDATE llm_metrics SET region = 'eu-' || model"),
)
"""


def mode_of(path):
    return stat.S_IMODE(Path(path).stat().st_mode)


def pragma(path, name):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]
    finally:
        connection.close()


@given(made.records)
@settings(deadline=None)
def test_a_record_comes_back_from_its_row_as_it_was(one):
    connection = sqlite3.connect(":memory:")
    for statement in schema.MIGRATIONS[0]:
        connection.execute(statement)
    connection.execute(schema.INSERT, schema.row_of(one))
    (row,) = connection.execute(schema.SELECT)
    connection.close()
    assert schema.record_of(row) == one


def test_every_field_of_a_record_has_a_column():
    assert set(schema.COLUMNS) >= {field.name for field in msgspec.structs.fields(AgentMetrics)}
    connection = sqlite3.connect(":memory:")
    for statements in schema.MIGRATIONS:
        for statement in statements:
            connection.execute(statement)
    assert {row[1] for row in connection.execute("PRAGMA table_info(llm_metrics)")} == set(schema.COLUMNS)
    connection.close()


def test_a_new_store_is_ours_alone_and_in_wal_mode(tmp_path):
    path = tmp_path / "new" / "calls.db"
    connection = schema.connect(path, create=True)
    connection.execute(schema.INSERT, schema.row_of(record()))
    assert [mode_of(found) for found in (path, f"{path}-wal", f"{path}-shm")] == [0o600] * 3
    assert mode_of(path.parent) == 0o700
    connection.close()
    assert pragma(path, "journal_mode") == "wal"
    assert pragma(path, "user_version") == len(schema.MIGRATIONS)
    assert pragma(path, "application_id") == schema.APPLICATION_ID


def test_a_path_of_any_spelling_works(tmp_path):
    path = tmp_path / "50% ? of#calls ünï.db"
    schema.connect(path, create=True).close()
    assert path.stat().st_size > 0
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_file_of_zero_bytes_becomes_a_store(tmp_path):
    path = tmp_path / "calls.db"
    path.touch()
    schema.connect(path, create=False).close()
    assert pragma(path, "user_version") == len(schema.MIGRATIONS)


def test_a_missing_store_is_not_made_for_who_only_asks(tmp_path):
    with pytest.raises(StoreError, match="there is no such store"):
        schema.connect(tmp_path / "calls.db", create=False)
    assert list(tmp_path.iterdir()) == []


def newer(path, *, seconds=30):
    """Open a store by a tellmeter that is one version further."""
    code = f"{NEXT}\nfrom pathlib import Path\nimport sys\nschema.connect(Path(sys.argv[1]), create=True).close()"
    return made.python(code, path, timeout=seconds)


def test_an_older_store_is_brought_up_to_date_with_what_is_in_it(tmp_path):
    path = tmp_path / "calls.db"
    connection = schema.connect(path, create=True)
    old = record()
    connection.execute(schema.INSERT, schema.row_of(old))
    connection.close()
    newer(path)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT id, region FROM llm_metrics").fetchall() == [(old.id, "eu-gpt-4o")]
    connection.close()
    assert pragma(path, "user_version") == len(schema.MIGRATIONS) + 1


def test_a_newer_store_says_what_to_do(tmp_path):
    path = tmp_path / "calls.db"
    newer(path)
    with pytest.raises(SchemaTooNew, match=r"newer tellmeter.*upgrade tellmeter, or name another store") as caught:
        schema.connect(path, create=True)
    assert "\n" not in str(caught.value)
    assert schema.reason_of(caught.value) == "schema_too_new"


def test_a_writer_that_is_older_goes_on_while_a_newer_one_migrates(tmp_path):
    path = tmp_path / "calls.db"
    connection = schema.connect(path, create=True)
    connection.execute(schema.INSERT, schema.row_of(record()))
    newer(path)
    connection.execute(schema.INSERT, schema.row_of(record()))
    assert connection.execute("SELECT count(*) FROM llm_metrics").fetchone() == (2,)
    connection.close()


@pytest.mark.parametrize("start", ["nothing", "empty file", "older store"])
def test_processes_that_open_it_at_once_migrate_it_once(tmp_path, start):
    path = tmp_path / "calls.db"
    if start == "older store":
        connection = schema.connect(path, create=True)
        connection.execute(schema.INSERT, schema.row_of(record()))
        connection.close()
    elif start == "empty file":
        path.touch()
    code = f"""{NEXT}
import sys
from pathlib import Path
from tests.unit.sinks.made import record
print("ready", flush=True)
sys.stdin.readline()
connection = schema.connect(Path(sys.argv[1]), create=True, busy_seconds=30)
for _ in range(50):
    connection.execute(schema.INSERT, schema.row_of(record()))
connection.close()
"""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **made.PATHS},
        )
        for _ in range(4)
    ]
    for child in children:
        child.stdout.readline()
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        _, errors = child.communicate(timeout=60)
        assert (child.returncode, errors) == (0, "")
    connection = sqlite3.connect(path)
    (count,) = connection.execute("SELECT count(*) FROM llm_metrics").fetchone()
    assert [row[1] for row in connection.execute("PRAGMA table_info(llm_metrics)")].count("region") == 1
    connection.close()
    assert count == 200 + (start == "older store")


def test_a_migration_that_fails_leaves_the_store_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "calls.db"
    schema.connect(path, create=True).close()
    broken = ("ALTER TABLE llm_metrics ADD COLUMN region TEXT", "ALTER TABLE nowhere ADD COLUMN region TEXT")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, broken))
    with pytest.raises(StoreError):
        schema.connect(path, create=True)
    monkeypatch.undo()
    connection = schema.connect(path, create=True)
    assert {row[1] for row in connection.execute("PRAGMA table_info(llm_metrics)")} == set(schema.COLUMNS)
    connection.close()


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE users (name TEXT)", "PRAGMA user_version = 7", "PRAGMA application_id = 7"]
)
def test_another_programs_database_is_left_alone(tmp_path, statement):
    path = tmp_path / "app.db"
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program's data; name another store") as caught:
        schema.connect(path, create=True)
    assert path.read_bytes() == before
    assert schema.reason_of(caught.value) == "foreign_database"


def test_what_is_no_database_is_left_alone(tmp_path):
    path = tmp_path / "calls.db"
    path.write_bytes(b"dear diary, " * 1000)
    with pytest.raises(StoreError, match=r"calls\.db: it is no SQLite database; move it away") as caught:
        schema.connect(path, create=True)
    assert schema.reason_of(caught.value) == "not_a_database"
    assert path.read_bytes() == b"dear diary, " * 1000


def test_a_damaged_store_is_named(tmp_path):
    path = tmp_path / "calls.db"
    connection = schema.connect(path, create=True)
    for number in range(500):
        connection.execute(schema.INSERT, schema.row_of(record(number)))
    connection.close()
    content = bytearray(path.read_bytes())
    content[8192:] = os.urandom(len(content) - 8192)
    path.write_bytes(content)
    connection = schema.connect(path, create=True)
    with pytest.raises(sqlite3.DatabaseError) as caught:
        connection.execute("SELECT sum(latency_ms) FROM llm_metrics NOT INDEXED").fetchall()
    connection.close()
    assert schema.reason_of(caught.value) == "corrupt"
    assert "it is damaged; move it away" in str(schema.store_error(path, caught.value))


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "calls.db").mkdir()
    with pytest.raises(StoreError, match="cannot be opened") as caught:
        schema.connect(tmp_path / "calls.db", create=True)
    assert schema.reason_of(caught.value) == "cannot_open"


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "folder").touch()
    with pytest.raises(StoreError, match="is no folder") as caught:
        schema.connect(tmp_path / "folder" / "calls.db", create=True)
    assert schema.reason_of(caught.value) == "no_such_folder"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_device_is_no_store():
    with pytest.raises(StoreError, match="/dev/full: the disk is full"):
        schema.connect(Path("/dev/full"), create=True, busy_seconds=0)


def test_a_locked_store_is_waited_for_no_longer_than_told(tmp_path):
    path = tmp_path / "calls.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="locked by another program; try again") as caught:
        schema.connect(path, create=True, busy_seconds=0)
    assert schema.reason_of(caught.value) == "locked"
    holder.execute("ROLLBACK")
    holder.close()


def test_a_lock_that_opens_in_time_is_waited_for(tmp_path):
    path = tmp_path / "calls.db"
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.1, holder.execute, ("ROLLBACK",))
    release.start()
    schema.connect(path, create=True, busy_seconds=30).close()
    release.join()
    holder.close()
    assert pragma(path, "user_version") == len(schema.MIGRATIONS)


# Permissions stop everybody but root. The child gives its rights up itself: nobody may not enter root's interpreter.
AS_NOBODY = """
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
"""


@pytest.fixture
def readable(tmp_path_factory):
    """A folder that every user may enter, for tests that need somebody who is not root."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
        Path(folder).chmod(0o755)


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of another kind")
@pytest.mark.parametrize("journal", ["tidy", "left behind"])
def test_a_store_that_may_only_be_read_is_read(readable, journal):
    path = readable / "calls.db"
    connection = schema.connect(path, create=True)
    connection.execute(schema.INSERT, schema.row_of(record()))
    if journal == "tidy":
        connection.close()
    for found in readable.iterdir():
        found.chmod(0o444)
    readable.chmod(0o555)
    code = f"""
import os, sys
from pathlib import Path
from tellmeter.sinks.sqlite import schema as schema
{AS_NOBODY}
connection = schema.connect(Path(sys.argv[1]), create=False, reading=True)
print(connection.execute("SELECT count(*) FROM llm_metrics").fetchone()[0])
connection.close()
connection = schema.connect(Path(sys.argv[1]), create=False, reading=True)
try:
    connection.execute("DELETE FROM llm_metrics")
except Exception as error:
    print(schema.reason_of(error))
connection.close()
"""
    answer = made.python(code, path, cwd="/", timeout=60)
    if journal == "left behind":
        connection.close()
    assert answer.stdout.split() == ["1", "read_only"]


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of another kind")
def test_a_store_that_cannot_be_made_says_why(readable):
    readable.chmod(0o555)
    code = f"""
import os, sys
from pathlib import Path
from tellmeter.errors import StoreError
from tellmeter.sinks.sqlite import schema as schema
{AS_NOBODY}
try:
    schema.connect(Path(sys.argv[1]), create=True)
except StoreError as error:
    print(schema.reason_of(error), error)
"""
    answer = made.python(code, readable / "calls.db", cwd="/", timeout=60)
    assert answer.stdout.startswith("not_permitted ")
    assert "calls.db: it cannot be made: Permission denied" in answer.stdout


def test_errors_that_nobody_expected_have_a_name_too(tmp_path):
    assert schema.reason_of(sqlite3.ProgrammingError("Cannot operate on a closed database")) == "sqlite_error"
    assert "ProgrammingError" in str(schema.store_error(tmp_path, sqlite3.ProgrammingError("secret")))
    assert "secret" not in str(schema.store_error(tmp_path, sqlite3.ProgrammingError("secret")))
