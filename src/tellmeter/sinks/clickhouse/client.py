"""Statements to ClickHouse over its HTTP interface: what came back, or why nothing did."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from ..sending.answers import HTTPAnswer
from ..sending.sender import HTTPSender
from .errors import NOT_CLICKHOUSE, TOO_MUCH, UNREADABLE, Failure, cause_of_code, cause_of_outcome

T = TypeVar("T")

ANSWER_BYTES = 512 * 1024 * 1024
FORMAT = "JSONCompactEachRow"
_CODE = re.compile(rb"Code: (\d+)\.")
_TAIL = 16 * 1024
# What `{name:String}` is read as: tab separated values.
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n"})


class Client:
    """One server. Values go by parameters, `{name:Type}` in SQL, never into its text."""

    def __init__(self, sender: HTTPSender, path: str) -> None:
        self.sender = sender
        self._path = path

    def run(
        self,
        sql: str,
        deadline: float,
        *,
        settings: Mapping[str, str] | None = None,
        values: Mapping[str, str | int] | None = None,
        data: bytes | None = None,
    ) -> bytes:
        """Run a statement; `data` is what an INSERT inserts.

        Raises:
            Failure: it was not carried out, or nobody knows.
        """
        # An exception after the first bytes of an answer would come with status 200: so no byte before the end.
        asked: dict[str, str] = {"wait_end_of_query": "1", **(settings or {})}
        asked |= {f"param_{name}": str(value).translate(_ESCAPES) for name, value in (values or {}).items()}
        if data is not None:
            asked["query"] = sql
        answer = self.sender.exchange(
            sql.encode() if data is None else data,
            deadline,
            target=f"{self._path}?{urlencode(asked)}",
            headers={"content-type": "text/plain; charset=utf-8"},
            answer_bytes=ANSWER_BYTES,
        )
        if not isinstance(answer, HTTPAnswer):
            raise Failure(cause_of_outcome(answer))
        code = exception_code(answer)
        if code is not None:
            raise Failure(cause_of_code(code, answer.status), code)
        if not 200 <= answer.status < 300:
            raise Failure(cause_of_outcome(self.sender.judged(answer)))
        if len(answer.body) >= ANSWER_BYTES:
            raise Failure(TOO_MUCH)
        return answer.body

    def rows(
        self,
        sql: str,
        deadline: float,
        kind: type[T],
        *,
        settings: Mapping[str, str] | None = None,
        values: Mapping[str, str | int] | None = None,
    ) -> list[T]:
        """The rows that a question has, each as `kind`, a tuple type.

        Raises:
            Failure: it was not answered, or not as it should be.
        """
        settings = {"output_format_json_quote_64bit_integers": "0", **(settings or {})}
        body = self.run(f"{sql} FORMAT {FORMAT}", deadline, settings=settings, values=values)
        try:
            return msgspec.json.Decoder(kind).decode_lines(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Failure(UNREADABLE if body.startswith(b"[") else NOT_CLICKHOUSE) from None


def exception_code(answer: HTTPAnswer) -> int | None:
    """The code of the exception in an answer: in its header, or in the text that it is or ends with."""
    named = answer.headers.get("x-clickhouse-exception-code", "")
    if named.isdecimal() and named != "0":
        return int(named)
    lines = answer.body[-_TAIL:].splitlines()
    for line in reversed(lines[1:] if len(answer.body) > _TAIL else lines):
        # A row is a list; what is in it may look like anything.
        if not line.startswith(b"[") and (found := _CODE.search(line)):
            return int(found[1])
    return None
