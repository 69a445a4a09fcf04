"""Journal entries as JSON text, and back.

One entry is one JSON list: a short tag, then the fields in their order, with trailing fields that
have their default left out. `at` fields that equal the time of the journal row they stand in are
written as null. A message is `[tag, payload]`, or `[tag, payload, to]`, or `[tag, payload, to,
kinds]`. The tables below are the format; a journal written by any release must stay readable, so
tags and the order of fields never change, and fields are only ever added at the end.

The module knows entries and messages, but no payloads: those it leaves to the program's types.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, cast

from stepwell.authoring.program import TypeRegistry
from stepwell.errors import StoreCorrupt
from stepwell.kernel import journal as j
from stepwell.kernel.decide import CHILD, FAILURE
from stepwell.kernel.outcomes import ChildResult, Failure, Message
from stepwell.values import ErrorInfo, Json, RunStatus

TAGS: dict[str, type[j.Entry]] = {
    "run": j.RunStarted,
    "add": j.WorkAdded,
    "beg": j.WorkBegun,
    "done": j.WorkDone,
    "que": j.WorkQueued,
    "fail": j.AttemptFailed,
    "exp": j.AttemptExpired,
    "join": j.Joined,
    "rel": j.JoinReleased,
    "open": j.StreamOpened,
    "close": j.StreamClosed,
    "wait": j.WaitOpened,
    "got": j.WaitEnded,
    "drop": j.WaitDropped,
    "kid": j.ChildStarted,
    "memo": j.AnswerKept,
    "buf": j.BufferGathered,
    "dig": j.Digested,
    "pub": j.Published,
    "unh": j.Unhandled,
    "set": j.StateEdited,
    "kept": j.StateKept,
    "inb": j.InboxTaken,
    "scope": j.ScopeEntered,
    "end": j.RunEnded,
    "park": j.RunParked,
    "res": j.RunResumed,
}
"""The short tag of every kind of entry."""

_write = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_in_quotes = json.encoder.encode_basestring


def _quote(value: object) -> str:
    """Plain JSON as text. A text, which most of it is, goes the short way."""
    return _in_quotes(value) if isinstance(value, str) else _write(value)


def encode(entries: Iterable[j.Entry], types: TypeRegistry, at: float) -> bytes:
    """The JSON text of `entries`, as one journal row written at `at`."""
    return _unmarked(f"[{','.join(encode_entry(e, types, at) for e in entries)}]").encode()


def encode_entry(entry: j.Entry, types: TypeRegistry, at: float) -> str:
    """One entry as JSON text."""
    tag, columns = _COLUMNS[type(entry)]
    parts: list[str] = []
    for name, default, write in reversed(columns):
        value = getattr(entry, name)
        if not parts and default is not MISSING and value == default:
            continue  # trailing fields that have their default are left out
        parts.append(
            "null" if value is None or (name == "at" and value == at) else write(value, types)
        )
    parts.append(tag)
    parts.reverse()
    return f"[{','.join(parts)}]"


def decode(data: bytes | str, types: TypeRegistry, at: float) -> list[j.Entry]:
    """The entries of a journal row. Raises `StoreCorrupt` when it is none."""
    rows = _list(_json(data))
    return [decode_entry(row, types, at) for row in rows]


def decode_entry(row: list[Any], types: TypeRegistry, at: float) -> j.Entry:
    """One entry from its JSON list; columns that a later release has added are left out. Raises
    `StoreCorrupt` when it is none."""
    try:
        kind = TAGS[_list(row)[0]]
        values: list[object] = []
        for column, (name, read) in zip(row[1:], _READERS[kind], strict=False):
            if column is None and name == "at":
                values.append(at)
            else:
                values.append(read(column, types))
        return kind(*values)  # pyright: ignore[reportArgumentType, reportCallIssue]
    except (KeyError, IndexError, TypeError) as error:
        raise StoreCorrupt(f"a journal entry can't be read: {error!r} in {row!r:.200}") from error


def _json(data: bytes | str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise StoreCorrupt(f"what is stored is not JSON: {error}") from error


def _list(value: object) -> list[Any]:
    if isinstance(value, list):
        return cast("list[Any]", value)
    raise StoreCorrupt(f"a list was stored here, not {value!r:.200}")


# --- messages and other parts --------------------------------------------------------------------


def write_message(m: Message, types: TypeRegistry) -> str:
    """A message as JSON text; its payload's text is kept on it, so it is written only once."""
    payload = m.data
    tag = m.tag
    if payload is None:
        inner = m.payload
        if isinstance(inner, Failure):
            payload = _write_failure(inner, types)
        elif isinstance(inner, ChildResult):
            payload = _write_child(inner, types)
        else:
            payload = types.dumps(inner)
        m.data = payload
    if m.kinds:
        return f"[{_quote(tag)},{payload},{_quote(m.to)},{_quote(m.kinds)}]"
    if m.to is not None:
        return f"[{_quote(tag)},{payload},{_quote(m.to)}]"
    return f"[{_quote(tag)},{payload}]"


def read_message(row: list[Any], types: TypeRegistry) -> Message:
    """The message that `write_message` wrote."""
    tag, data, to, kinds = _message_parts(row)
    if isinstance(data, dict) and len(cast("dict[str, Any]", data)) == 1:
        # What only this module writes, under tags that only the kernel gives.
        (key, inner) = next(iter(cast("dict[str, Any]", data).items()))
        if tag == FAILURE and key == "\x00failure":
            return Message(tag, _read_failure(inner, types), to, kinds)
        if tag == CHILD and key == "\x00child":
            return Message(tag, _read_child(inner, types), to, kinds)
    return Message(tag, types.load(tag, cast(Json, data)), to, kinds)


def _message_parts(row: object) -> tuple[str, Any, str | None, tuple[str, ...]]:
    tag, data, *more = _of(row, 2, 3, 4)
    to = _text(more[0]) if more and more[0] is not None else None
    kinds = tuple(_text(kind) for kind in _list(more[1])) if len(more) > 1 else ()
    return _text(tag), data, to, kinds


def _write_failure(f: Failure, types: TypeRegistry) -> str:
    parts = (
        _quote(f.step),
        _write_input(f.input, types),
        _write_error(f.error, types),
        _quote(f.attempts),
        _quote(f.elapsed),
        _quote(f.failed_at),
    )
    return f'{{"\\u0000failure":[{",".join(parts)}]}}'


def _read_failure(row: list[Any], types: TypeRegistry) -> Failure:
    step, input, error, attempts, elapsed, failed_at = _of(row, 6)
    return Failure(
        step, _read_input(input, types), _read_error(error, types), attempts, elapsed, failed_at
    )


def _write_child(c: ChildResult, types: TypeRegistry) -> str:
    return f'{{"\\u0000child":{encode_child(c, types)}}}'


def encode_child(c: ChildResult, types: TypeRegistry) -> str:
    """How a child ended, as JSON text: what its parent's inbox receives."""
    error = "null" if c.error is None else _write_error(c.error, types)
    result = "null" if c.result is None else write_message(c.result, types)
    more = f",{_quote(c.workflow)},{_quote(c.state)}" if c.workflow or c.state is not None else ""
    return f"[{_quote(c.run)},{_quote(c.status)},{result},{error}{more}]"


def _read_child(row: list[Any], types: TypeRegistry) -> ChildResult:
    more = _list(row)[4:6]
    workflow, state = more if len(more) == 2 else ("", None)
    run, status, result, error = _of(row[:4], 4)
    info = None if error is None else _read_error(error, types)
    # The result is of a type that the child's program knows; the text is kept for it.
    message = None
    if result is not None:
        tag, data, to, kinds = _message_parts(result)
        message = Message(tag, data, to, kinds, _quote(data))
    return ChildResult(_text(run), _status(status, types), message, info, _text(workflow), state)


def decode_child(data: bytes, types: TypeRegistry) -> ChildResult:
    """The `ChildResult` that `encode_child` wrote."""
    return _read_child(_json(data), types)


def _write_error(e: ErrorInfo, _types: TypeRegistry) -> str:
    row: list[Json] = [e.type, e.message]
    if e.details is not None or e.where is not None:
        row.append(e.details)
    if e.where is not None:
        row.append(e.where)
    return _quote(row)


def _read_error(row: list[Any], _types: TypeRegistry) -> ErrorInfo:
    kind, message, *rest = _of(row, 2, 3, 4)
    details, where = (*rest, None, None)[:2]
    return ErrorInfo(_text(kind), _text(message), details, None, where and _text(where))


def _write_input(value: Message | tuple[Message, ...], types: TypeRegistry) -> str:
    if isinstance(value, Message):
        return write_message(value, types)
    return f"[[{','.join(write_message(m, types) for m in value)}]]"


def _read_input(row: list[Any], types: TypeRegistry) -> Message | tuple[Message, ...]:
    if row and isinstance(row[0], list):
        return tuple(read_message(m, types) for m in cast("list[Any]", row[0]))
    return read_message(row, types)


def _write_messages(value: Sequence[Message], types: TypeRegistry) -> str:
    return f"[{','.join(write_message(m, types) for m in value)}]"


def _read_messages(row: list[Any], types: TypeRegistry) -> tuple[Message, ...]:
    return tuple(read_message(m, types) for m in _list(row))


def _write_answer(value: object, types: TypeRegistry) -> str:
    return write_message(cast(Message, value), types)


def _plain(value: object, _types: TypeRegistry) -> str:
    return _quote(value)


def _flag(value: object, _types: TypeRegistry) -> str:
    return "1" if value else "0"


Writer = Callable[[Any, TypeRegistry], str]
Reader = Callable[[Any, TypeRegistry], object]


def _of(row: object, *lengths: int) -> list[Any]:
    if len(_list(row)) not in lengths:
        raise StoreCorrupt(f"what is stored has the wrong length: {row!r:.200}")
    return cast("list[Any]", row)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise StoreCorrupt(f"a text was stored here, not {value!r:.200}")


def _status(value: object, _types: TypeRegistry) -> RunStatus:
    try:
        return RunStatus(_text(value))
    except ValueError as error:
        raise StoreCorrupt(f"a run can't be {value!r:.200}") from error


def _only(*kinds: type) -> Reader:
    """Reads a plain value of one of these types; true and false are not numbers."""

    def read(value: object, _types: TypeRegistry) -> object:
        if type(value) not in kinds:
            names = " or ".join(kind.__name__ for kind in kinds)
            raise StoreCorrupt(f"{names} was stored here, not {value!r:.200}")
        return value

    return read


def _read_flag(value: object, _types: TypeRegistry) -> bool:
    if value not in (0, 1):
        raise StoreCorrupt(f"0 or 1 was stored here, not {value!r:.200}")
    return bool(value)


def _tuple_of(kind: type) -> Reader:
    item = _only(kind)
    return lambda value, types: tuple(item(v, types) for v in _list(value))


def _numbers(value: object, types: TypeRegistry) -> object:
    if not isinstance(value, dict):
        raise StoreCorrupt(f"counts were stored here, not {value!r:.200}")
    for count in cast("dict[str, object]", value).values():
        _only(int)(count, types)
    return cast("dict[str, object]", value)


def _optional(read: Reader) -> Reader:
    return lambda value, types: None if value is None else read(value, types)


_KINDS: dict[str, tuple[Writer, Reader]] = {
    "Message": (write_message, read_message),
    "Message | tuple[Message, ...]": (_write_input, _read_input),
    "Message | tuple[Message, ...] | None": (_write_input, _read_input),
    "Sequence[Message]": (_write_messages, _read_messages),
    "ErrorInfo": (_write_error, _read_error),
    "object": (_write_answer, _optional(read_message)),
    "bool": (_flag, _read_flag),
    "int": (_plain, _only(int)),
    "float": (_plain, _only(float, int)),
    "str": (_plain, _only(str)),
    "RunStatus": (_plain, _status),
    "Literal['error', 'exit']": (_plain, _only(str)),
    "tuple[str, ...]": (_plain, _tuple_of(str)),
    "tuple[int, ...]": (_plain, _tuple_of(int)),
    "Sequence[int]": (_plain, _only(list)),
    "Sequence[Json]": (_plain, _only(list)),
    "Mapping[str, int]": (_plain, _numbers),
    "Mapping[str, Json]": (_plain, _only(dict)),
}
"""How a field of this type is written and read; `| None` is understood."""


def _column(type: str) -> tuple[Writer, Reader]:
    plain = type.removesuffix(" | None")
    write, read = _KINDS[plain]
    return write, read if plain == type else _optional(read)


def _columns(kind: type[j.Entry]) -> list[tuple[str, object, Writer]]:
    return [(f.name, f.default, _column(str(f.type))[0]) for f in fields(kind)]


_COLUMNS: Mapping[type, tuple[str, list[tuple[str, object, Writer]]]] = {
    kind: (_quote(tag), _columns(kind)) for tag, kind in TAGS.items()
}
_READERS: Mapping[type, list[tuple[str, Reader]]] = {
    kind: [(f.name, _column(str(f.type))[1]) for f in fields(kind)] for kind in TAGS.values()
}


def encode_message(m: Message, types: TypeRegistry) -> bytes:
    """A lone message as bytes: what a run's inbox holds."""
    return write_message(m, types).encode()


def decode_message(data: bytes, types: TypeRegistry) -> Message:
    """The message that `encode_message` wrote."""
    return read_message(_json(data), types)


def encode_arrival(
    m: Message,
    wait: str | None,
    types: TypeRegistry,
    keep: bool = True,
    since: float | None = None,
) -> bytes:
    """A message from outside, as it stands in an inbox; `wait` is the question it answers. With
    `keep` False it is for that question alone, as it was asked at `since`."""
    more = "" if keep else f',"k":0,"s":{_quote(since)}'
    return f'{{"m":{write_message(m, types)},"w":{_quote(wait)}{more}}}'.encode()


def dump_json(value: Json) -> bytes:
    """Plain JSON as bytes."""
    return _quote(value).encode()


def rough_size(value: object, enough: int) -> int:
    """At least how many bytes `value` takes as JSON: the length of its texts, counted until there
    are `enough`."""
    size = 0
    rest: list[object] = [value]
    seen: set[int] = set()  # what holds itself can't be written, and is not to hang us
    while rest and size <= enough:
        item = rest.pop()
        if isinstance(item, str | bytes):
            size += len(item)
            continue
        if item is None or isinstance(item, int | float) or id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Mapping):
            fields = cast("Mapping[object, object]", item)
            rest.extend(fields)
            rest.extend(fields.values())
        elif isinstance(item, list | tuple | set | frozenset | deque):
            rest.extend(cast("Iterable[object]", item))
        else:
            rest.append(getattr(item, "__dict__", None))
    return size


# --- big payloads --------------------------------------------------------------------------------

_BLOB = "\x00blob"
"""The key that marks what is kept apart: `{_BLOB: digest}`. A dictionary of a user's that has this
key stands, as it is, under the same mark: `{_BLOB: {...}}`."""

_MARK = "\\u0000blob"
_LITERAL = f'"{_MARK}":{{'.encode()


def _unmarked(text: str) -> str:
    """JSON text in which nothing of a user's looks like what is kept apart."""
    return _quote(_literally(json.loads(text))) if _MARK in text else text


def _literally(value: Any) -> Any:
    if isinstance(value, list):
        return [_literally(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        rows = {key: _literally(item) for key, item in cast("dict[str, Any]", value).items()}
        return {_BLOB: rows} if _BLOB in rows else rows
    return value


def encode_row(
    entries: Iterable[j.Entry], types: TypeRegistry, at: float, above: int
) -> tuple[bytes, dict[str, bytes]]:
    """`encode`, with the payload of every message that takes more than `above` characters kept
    apart, by its digest. It is written and hashed once, and never read back: it may be of many
    megabytes, and the event loop waits."""
    entries = tuple(entries)
    texts = [encode_entry(entry, types, at) for entry in entries]
    blobs: dict[str, bytes] = {}
    if sum(map(len, texts)) <= above:
        return _unmarked(f"[{','.join(texts)}]").encode(), blobs
    marks: dict[str, str] = {}
    whole: list[tuple[Message, str]] = []
    try:
        for message in (m for entry in entries for m in _messages_of(entry)):
            text = message.data
            if text is not None and len(text) > above and text not in marks:
                data = text.encode()
                digest = hashlib.sha256(data).hexdigest()
                blobs[digest] = data
                # What stands for it must be nothing that a user could have written.
                stand_in = f'"{uuid.uuid4().hex}"'
                marks[stand_in] = _mark_of(digest)
                whole.append((message, text))
                message.data = stand_in
        row = f"[{','.join(encode_entry(entry, types, at) for entry in entries)}]"
    finally:
        for message, text in whole:
            message.data = text
    row = _unmarked(row)
    for stand_in, mark in marks.items():
        row = row.replace(stand_in, mark)
    return row.encode(), blobs


def _messages_of(entry: j.Entry) -> Iterable[Message]:
    """The messages that an entry holds, each once."""
    for field in fields(entry):
        value: object = getattr(entry, field.name)
        for item in cast(
            "Sequence[object]", value if isinstance(value, tuple | list) else (value,)
        ):
            if isinstance(item, Message):
                yield item


def _mark_of(digest: str) -> str:
    """What stands in a row for what is kept apart."""
    return f'{{"{_MARK}":"{digest}"}}'


def has_marks(data: bytes) -> bool:
    """Whether a journal row has to go through `with_blobs` before it is decoded."""
    return _MARK.encode() in data


def digests_in(data: bytes) -> list[str]:
    """The digests of the payloads that a journal row keeps apart."""
    found: list[str] = []

    def look(value: Any) -> None:
        if isinstance(value, dict):
            rows = cast("dict[str, Any]", value)
            mark = rows.get(_BLOB)
            if isinstance(mark, str):
                found.append(mark)
            else:
                literal = cast("dict[str, Any]", mark) if isinstance(mark, dict) else rows
                for item in literal.values():
                    look(item)
        elif isinstance(value, list):
            for item in cast("list[Any]", value):
                look(item)

    look(_json(data))
    return found


def with_blobs(data: bytes, blobs: Mapping[str, bytes]) -> bytes:
    """A journal row as it was before what is in `blobs` was kept apart."""
    if _LITERAL not in data:
        for digest, blob in blobs.items():
            data = data.replace(_mark_of(digest).encode(), blob)
        return data

    def put(value: Any) -> Any:
        if isinstance(value, dict):
            rows = cast("dict[str, Any]", value)
            mark = rows.get(_BLOB)
            if isinstance(mark, str):
                return json.loads(blobs[mark])
            literal = cast("dict[str, Any]", mark) if isinstance(mark, dict) else rows
            return {key: put(item) for key, item in literal.items()}
        if isinstance(value, list):
            return [put(item) for item in cast("list[Any]", value)]
        return value

    return _quote(put(json.loads(data))).encode()
