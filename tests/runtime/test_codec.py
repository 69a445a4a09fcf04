"""Journal rows: every entry can be read back, by this release and by every later one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepwell.authoring.program import TypeRegistry
from stepwell.errors import StoreCorrupt
from stepwell.kernel import journal as j
from stepwell.kernel.decide import CHILD, FAILURE
from stepwell.kernel.outcomes import ChildResult, Failure, Message
from stepwell.runtime import codec
from stepwell.values import ErrorInfo, RunStatus

GOLDEN = Path(__file__).parent / "golden" / "journal-1.jsonl"
AT = 1_700_000_000.25
TYPES = TypeRegistry([])

# --- any entry at all ----------------------------------------------------------------------------

texts = st.text(max_size=6)
ints = st.integers(-(2**53), 2**53)
floats = st.just(AT) | st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 9)
json_values = st.recursive(
    st.none() | st.booleans() | ints | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
errors = st.builds(ErrorInfo, texts, texts, st.none() | json_values)
plain_messages = st.builds(
    Message, texts, json_values, st.none() | texts, st.lists(texts, max_size=2).map(tuple)
)
inputs = plain_messages | st.lists(plain_messages, max_size=3).map(tuple)
failures = st.builds(Failure, texts, inputs, errors, st.integers(0, 9), floats, floats)
children = st.builds(
    ChildResult, texts, st.sampled_from(RunStatus), st.none() | plain_messages, st.none() | errors
)
messages = (
    plain_messages
    | st.builds(Message, st.just(FAILURE), failures)
    | st.builds(Message, st.just(CHILD), children)
)

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": ints,
    "float": floats,
    "str": texts,
    "bool": st.booleans(),
    "Message": messages,
    "Message | tuple[Message, ...]": messages | st.lists(messages, max_size=3).map(tuple),
    "Sequence[Message]": st.lists(messages, max_size=3).map(tuple),
    "ErrorInfo": errors,
    "object": st.none() | messages,
    "RunStatus": st.sampled_from(RunStatus),
    "Literal['error', 'exit']": st.sampled_from(["error", "exit"]),
    "tuple[str, ...]": st.lists(texts, max_size=3).map(tuple),
    "tuple[int, ...]": st.lists(ints, max_size=3).map(tuple),
    "Sequence[int]": st.lists(ints, max_size=3),
    "Sequence[Json]": st.lists(json_values, max_size=3),
    "Mapping[str, int]": st.dictionaries(texts, ints, max_size=3),
    "Mapping[str, Json]": st.dictionaries(texts, json_values, max_size=3),
}


def values(field: dataclasses.Field[Any]) -> st.SearchStrategy[Any]:
    name = str(field.type)
    any_value = VALUES[name.removesuffix(" | None")]
    if name.endswith(" | None"):
        any_value = st.none() | any_value
    # Defaults in every place are the point of leaving them out.
    return any_value if field.default is dataclasses.MISSING else st.just(field.default) | any_value


def entries_of(kind: type[Any]) -> st.SearchStrategy[Any]:
    return st.builds(kind, **{f.name: values(f) for f in dataclasses.fields(kind)})


def test_every_kind_of_entry_has_a_tag_of_its_own() -> None:
    assert set(codec.TAGS.values()) == set(j.Entry.__args__)
    assert len(set(codec.TAGS.values())) == len(codec.TAGS)


@pytest.mark.parametrize("kind", codec.TAGS.values(), ids=lambda kind: kind.__name__)
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_every_entry_is_read_as_it_was_written(kind: type[Any], data: st.DataObject) -> None:
    entry = data.draw(entries_of(kind))
    row = codec.encode([entry, entry], TYPES, AT)
    again = codec.decode(row, TYPES, AT)
    assert again == [entry, entry]
    # The same values; a number may be spelt in another way.
    assert json.loads(codec.encode(again, TYPES, AT)) == json.loads(row)


@given(messages, st.none() | texts)
def test_messages_in_inboxes_are_read_as_they_were_written(m: Message, wait: str | None) -> None:
    assert codec.decode_message(codec.encode_message(m, TYPES), TYPES) == m
    row = json.loads(codec.encode_arrival(m, wait, TYPES))
    assert (codec.read_message(row["m"], TYPES), row["w"]) == (m, wait)


@given(children)
def test_how_a_child_ended_is_read_as_it_was_written(child: ChildResult) -> None:
    assert codec.decode_child(codec.encode_child(child, TYPES).encode(), TYPES) == child


big = st.sampled_from(["x" * 40, {"\x00blob": "d"}, ["\x00blob", {"\x00blob": {"a": "y" * 40}}]])


@pytest.mark.parametrize("kind", codec.TAGS.values(), ids=lambda kind: kind.__name__)
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.integers(0, 60), big)
def test_what_is_kept_apart_is_put_back(
    kind: type[Any], data: st.DataObject, above: int, payload: Any
) -> None:
    entries = [data.draw(entries_of(kind)), j.Published((Message("Big", payload),) * 2)]
    written = f"[{','.join(codec.encode_entry(e, TYPES, AT) for e in entries)}]"
    row, blobs = codec.encode_row(entries, TYPES, AT, above)
    assert json.loads(codec.with_blobs(row, blobs)) == json.loads(written)
    assert {*codec.digests_in(row)} == {*blobs}
    # Entries are as they were, and can be written again.
    assert f"[{','.join(codec.encode_entry(e, TYPES, AT) for e in entries)}]" == written


def test_a_big_payload_leaves_its_digest() -> None:
    row, blobs = codec.encode_row([j.Published((Message("A", "x" * 40, "s"),))], TYPES, AT, 40)
    ((digest, data),) = blobs.items()
    assert data == b'"' + b"x" * 40 + b'"'
    assert row == b'[["pub",[["A",{"\\u0000blob":"%b"},"s"]]]]' % digest.encode()


# --- the format ----------------------------------------------------------------------------------


def test_trailing_defaults_and_the_time_of_the_row_are_left_out() -> None:
    assert codec.encode([j.RunStarted(AT)], TYPES, AT) == b'[["run",null]]'
    assert codec.encode([j.RunStarted(AT + 1, None)], TYPES, AT) == b'[["run",1700000001.25]]'
    added = j.WorkAdded(3, "s", Message("A", {}), True, AT, None, 0, 0, None, AT)
    assert codec.encode_entry(added, TYPES, AT) == (
        f'["add",3,"s",["A",{{}}],1,null,null,0,0,null,{AT}]'
    )
    added.not_before = None
    assert codec.encode_entry(added, TYPES, AT) == '["add",3,"s",["A",{}],1,null]'


def test_a_step_of_a_chain_takes_less_than_120_bytes() -> None:
    step = [
        j.WorkDone(1_000_000),
        j.WorkAdded(1_000_001, "a_step_with_a_name", Message("AnEventWithAName", {}), True, AT),
    ]
    assert len(codec.encode(step, TYPES, AT)) < 120


def test_the_text_of_a_payload_is_made_once() -> None:
    m = Message("A", {"n": 1})
    codec.write_message(m, TYPES)
    m.payload = {"n": 2}
    assert codec.write_message(m, TYPES) == '["A",{"n":1}]'


def test_a_payload_that_looks_like_one_of_ours_is_a_payload() -> None:
    for key in ("\x00failure", "\x00child"):
        m = Message("A", {key: [1, 2]})
        assert codec.decode_message(codec.encode_message(m, TYPES), TYPES) == m


def test_a_column_that_a_later_release_has_added_is_left_out() -> None:
    assert codec.decode('[["done",7,"new"]]', TYPES, AT) == [j.WorkDone(7)]


MALFORMED = [
    "",
    "nonsense",
    "7",
    "{}",
    '{"done": 1}',
    "[7]",
    '["done"]',
    "[[]]",
    '[["nonsense",1]]',
    "[[7,1]]",
    '[[["done"],1]]',
    '[["done"]]',
    '[["done",null]]',
    '[["done","7"]]',
    '[["done",true]]',
    '[["done",7.5]]',
    '[["run","late"]]',
    '[["run",null,[]]]',
    '[["add",1,"s","AB",1,null]]',
    '[["add",1,"s",["A"],1,null]]',
    '[["add",1,"s",[7,{}],1,null]]',
    '[["add",1,"s",["A",{}],2,null]]',
    '[["add",1,7,["A",{}],1,null]]',
    '[["add",1,"s",["A",{},7],1,null]]',
    '[["add",1,"s",["A",{},null,"K"],1,null]]',
    '[["add",1,"s",["A",{}],1,null,null,0,0,{"h":"x"}]]',
    '[["add",1,"s",["A",{}],1,null,null,0,0,[]]]',
    '[["end","asleep",null]]',
    '[["end",7,null]]',
    '[["end","failed",null,null,"text"]]',
    '[["end","failed",null,null,["a"]]]',
    '[["end","failed",null,null,null,null,"c1"]]',
    '[["end","failed",null,null,null,null,[1]]]',
    '[["pub",{"a":1}]]',
    '[["pub",["A",{}]]]',
    '[["set",{}]]',
    '[["wait","w",null,0,"",null,[]]]',
    '[["add",1,"s",["StepFailedEvent",{"\\u0000failure":[]}],1,null]]',
    '[["add",1,"s",["ChildResult",{"\\u0000child":["c","asleep",null,null]}],1,null]]',
    "[" * 100_000,
    b"\xff",
]


@pytest.mark.parametrize("row", MALFORMED, ids=lambda row: repr(row)[:40])
def test_what_is_no_journal_row_is_said_to_be_corrupt(row: str | bytes) -> None:
    with pytest.raises(StoreCorrupt):
        codec.decode(row, TYPES, AT)


@pytest.mark.parametrize("data", [b"", b"7", b"[]", b'"AB"', b'["c","asleep",null,null]'])
def test_what_is_no_inbox_row_is_said_to_be_corrupt(data: bytes) -> None:
    with pytest.raises(StoreCorrupt):
        codec.decode_child(data, TYPES)
    with pytest.raises(StoreCorrupt):
        codec.decode_message(data[:4], TYPES)


# --- journals outlive releases -------------------------------------------------------------------

M = Message("Event", {"n": 1})
FAILED = Failure("s", (M, M), ErrorInfo("builtins.KeyError", "'k'", {"path": "a"}), 2, 1.5, AT)
ENDED = ChildResult("c1", RunStatus.FAILED, None, ErrorInfo("builtins.OSError", "no"))

EVERYTHING: list[j.Entry] = [
    j.RunStarted(AT, AT + 45),
    j.WorkAdded(1, "s", M, True, AT),
    j.WorkAdded(2, "s", (M, M), False, AT + 1, AT + 9, 3, 4, {"h": 1}, AT + 5),
    j.WorkAdded(3, "h", Message(FAILURE, FAILED), True, AT),
    j.WorkBegun(2, AT, AT + 9),
    j.WorkDone(1),
    j.WorkQueued(2, AT),
    j.AttemptFailed(2, ErrorInfo("builtins.ValueError", "broken"), AT, AT + 2),
    j.AttemptExpired(2, AT),
    j.Joined("j", 3, 0, 1, M, {"h": 1}),
    j.JoinReleased("j", 3, True),
    j.StreamOpened(3, 0, 0, ("j", "k"), {"h": 1}),
    j.StreamClosed(3),
    j.WaitOpened("w", AT, 2, "k", "Go", {"n": [1]}, AT + 9, M, "then", "late", M, 3, 4, {"h": 1}),
    j.WaitOpened("c1", AT, 2, "child:x"),
    j.WaitEnded("w", 2, Message("Go", {"n": 1}, "s", ("Base",))),
    j.WaitEnded("c1", 2, Message(CHILD, ENDED)),
    j.WaitEnded("t", 0, None, True),
    j.ChildStarted("c1", "Other", M),
    j.AnswerKept(2, "memo:a", Message("memo", [1, None, "é"])),
    j.AnswerKept(2, "collect:b", None),
    j.BufferGathered(2, "collect:b", "s", "b", M, (1, 2)),
    j.BufferGathered(2, "collect:b", "s", "b", M),
    j.Digested(2, [1, 2]),
    j.Published((M, M), 2),
    j.Published((M,)),
    j.Unhandled(M, True, "w"),
    j.StateEdited([{"op": "replace", "path": "/a", "value": None}]),
    j.InboxTaken("Go", 2),
    j.ScopeEntered("exit", RunStatus.COMPLETED, M, None, None, ("c1",), 2, 0.5),
    j.RunParked("the disk is full", AT),
    j.RunResumed(AT, "worker-1", AT + 45),
    j.RunEnded(RunStatus.FAILED, AT, None, ErrorInfo("E", "m"), "s", ("c1",), 2, 0.5),
    j.WaitDropped("c1", 2, AT, AT + 9, ("c1",)),
    j.StateKept(2, {"count": 1}),
]


def test_rows_written_by_the_first_release_are_read_as_they_were_meant() -> None:
    rows = GOLDEN.read_text(encoding="utf-8").splitlines()
    assert [codec.decode(row, TYPES, AT) for row in rows] == [[entry] for entry in EVERYTHING]
    assert {type(entry) for entry in EVERYTHING} == set(codec.TAGS.values())


def test_rows_are_still_written_as_the_first_release_wrote_them() -> None:
    rows = GOLDEN.read_text(encoding="utf-8").splitlines()
    assert [codec.encode([entry], TYPES, AT).decode() for entry in EVERYTHING] == rows
