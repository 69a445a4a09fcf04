"""The state of a run: paths, exclusive edits, undoing, journaling, and its forms as data."""

from __future__ import annotations

import asyncio
import threading
import timeit
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_serializer

from stepwell import patch as patches
from stepwell.authoring.events.model import Event
from stepwell.authoring.events.serializers import JsonSerializer
from stepwell.authoring.events.state_data import (
    DictState,
    InMemorySerializedState,
    StateCheckpoint,
    UnserializableKeyWarning,
    apply_state_patch,
    deserialize_state_from_dict,
    infer_state_type,
    parse_in_memory_state,
)
from stepwell.authoring.events.state_edit import StateEdit, StateStore
from stepwell.authoring.events.state_path import MISSING
from stepwell.authoring.events.state_store import InMemoryStateStore

JSON = JsonSerializer()


class Base(BaseModel):
    n: int = 0
    names: list[str] = Field(default_factory=list)


class Derived(Base):
    extra: dict[str, Any] = Field(default_factory=dict)
    when: datetime = datetime(2020, 1, 1, tzinfo=UTC)


class Strict(BaseModel):
    must: int


def store_of(**values: Any) -> InMemoryStateStore[DictState]:
    return InMemoryStateStore(DictState(**values), serializer=JSON)


def watched(
    store: InMemoryStateStore[Any],
) -> tuple[InMemoryStateStore[Any], list[StateEdit]]:
    edits: list[StateEdit] = []
    store.observer = edits.append
    return store, edits


# --- paths ----------------------------------------------------------------------------------


async def test_paths_lead_through_dicts_lists_models_and_attributes():
    class Other:
        size = 3

    store = store_of(a={"b": [1, {"c": 2}]}, m=Derived(names=["x"]), o=Other())
    assert await store.get("a.b.1.c") == 2
    assert await store.get("a.b.-1.c") == 2
    assert await store.get("m.names.0") == "x"
    assert await store.get("o.size") == 3
    assert (await store.get("")).a == {"b": [1, {"c": 2}]}


@pytest.mark.parametrize("path", ["zz", "a.zz", "l.9", "l.x", "a.b.real", "keys", "model_dump"])
async def test_what_is_not_there_is_an_error_or_the_default(path: str):
    store = store_of(a={"b": 1}, l=[1])
    with pytest.raises(ValueError, match=f"Path '{path}' not found in state"):
        await store.get(path)
    assert await store.get(path, default=None) is None


async def test_values_called_like_methods_are_found():
    store = store_of()
    await store.set("items", [1])
    await store.set("get.keys", 2)
    assert await store.get("items") == [1]
    assert await store.get("get.keys") == 2


async def test_setting_makes_the_dicts_on_the_way():
    store = store_of()
    await store.set("a.b.c", 1)
    assert await store.get("a") == {"b": {"c": 1}}


async def test_setting_reaches_into_lists_and_models():
    store = store_of(l=[{"x": 1}, 2], m=Base())
    await store.set("l.0.x", 9)
    await store.set("m.n", 7)
    assert await store.get("l") == [{"x": 9}, 2]
    assert await store.get("m") == Base(n=7)


async def test_setting_never_changes_what_others_hold():
    store = store_of(a={"b": {"c": 1}, "other": [1]}, m=Base(n=1))
    held, model = await store.get("a"), await store.get("m")
    await store.set("a.b.c", 2)
    await store.set("m.n", 2)
    assert held == {"b": {"c": 1}, "other": [1]}
    assert model.n == 1
    assert (await store.get("a"))["other"] is held["other"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "Path cannot be empty"),
        (".".join("a" * 1001), "Path length exceeds 1000 segments"),
        ("n.q", "cannot be set"),
        ("l.7", "cannot be set"),
        ("none.q", "cannot be set"),
    ],
)
async def test_paths_that_cannot_be_set_are_refused(path: str, message: str):
    store, edits = watched(store_of(n=1, l=[], none=None))
    with pytest.raises(ValueError, match=message):
        await store.set(path, 1)
    assert edits == []


async def test_a_path_of_a_thousand_segments_works():
    store = store_of()
    path = ".".join("a" * 1000)
    await store.set(path, 1)
    assert await store.get(path) == 1


async def test_a_declared_state_has_no_other_fields():
    store = InMemoryStateStore(Base())
    with pytest.raises(ValueError, match='"Base" object has no field "zz"'):
        await store.set("zz", 1)


# --- the whole state --------------------------------------------------------------------------


async def test_a_copy_of_the_state_may_be_changed_without_effect():
    store = store_of(n=1)
    state = await store.get_state()
    state.n = 2
    assert await store.get("n") == 1


async def test_a_state_of_the_same_type_replaces():
    store = store_of(a=1, b=2)
    await store.set_state(DictState(b=3))
    assert (await store.get_state()).to_dict() == {"b": 3}


async def test_a_state_of_a_parent_type_is_merged():
    store = InMemoryStateStore(Derived(n=1, extra={"k": 1}))
    await store.set_state(Base(n=5))
    state = await store.get_state()
    assert (state.n, state.extra) == (5, {"k": 1})


async def test_a_state_of_another_type_is_refused():
    store = InMemoryStateStore(Derived())
    with pytest.raises(
        ValueError, match="State must be of type Derived or a parent type, got DictState"
    ):
        await store.set_state(DictState())


async def test_clearing_gives_the_defaults():
    store = InMemoryStateStore(Derived(n=5))
    await store.clear()
    assert await store.get_state() == Derived()
    dynamic = store_of(a=1)
    await dynamic.clear()
    assert len(await dynamic.get_state()) == 0


async def test_a_state_without_defaults_cannot_be_cleared():
    with pytest.raises(ValueError, match="State must have defaults for all fields"):
        await InMemoryStateStore(Strict(must=1)).clear()


# --- exclusive edits ----------------------------------------------------------------------------


async def test_an_edit_is_seen_when_its_block_ends():
    store = store_of(l=[1])
    async with store.edit_state() as state:
        state.l.append(2)
        state.new = 1
        assert await store.get("l") == [1]
    assert await store.get("l") == [1, 2]
    assert await store.get("new") == 1


async def test_an_edit_that_raises_changes_nothing():
    store, edits = watched(store_of(l=[1]))
    with pytest.raises(KeyError):
        async with store.edit_state() as state:
            state.l.append(2)
            raise KeyError
    assert await store.get("l") == [1]
    assert edits == []
    await store.set("l", [3])  # and the right to write is free again
    assert await store.get("l") == [3]


async def test_deleting_in_an_edit_deletes():
    store, edits = watched(store_of(a=1, b=2))
    async with store.edit_state() as state:
        del state["a"]
        del state.b
    assert (await store.get_state()).to_dict() == {}
    assert edits[0].after == {"a": MISSING, "b": MISSING}


@pytest.mark.parametrize("write", ["set", "set_state", "clear", "edit_state"])
async def test_writing_inside_an_edit_is_refused(write: str):
    store = store_of()
    async with store.edit_state():
        with pytest.raises(
            RuntimeError,
            match="writer called inside edit_state: mutate the yielded state instead",
        ):
            await _write(store, write)


@pytest.mark.parametrize("write", ["set", "set_state", "clear", "edit_state"])
async def test_a_task_of_the_block_is_refused_too(write: str):
    store = store_of()
    async with store.edit_state():
        with pytest.raises(RuntimeError, match="writer called inside edit_state"):
            await asyncio.gather(_write(store, write))


async def _write(store: InMemoryStateStore[DictState], how: str) -> None:
    if how == "set":
        await store.set("a", 1)
    elif how == "set_state":
        await store.set_state(DictState())
    elif how == "clear":
        await store.clear()
    else:
        async with store.edit_state():
            pass


async def test_other_tasks_wait_for_the_block_and_readers_do_not():
    store, order = store_of(n=0), list[Any]()

    async def write() -> None:
        await store.set("n", 5)
        order.append("written")

    writer = asyncio.create_task(write())
    async with store.edit_state() as state:
        for _ in range(5):
            await asyncio.sleep(0)
        assert await store.get("n") == (5 if order else 0)
    await writer

    gate = asyncio.Event()

    async def late() -> None:
        await gate.wait()
        await store.set("n", 6)
        order.append("late")

    writer = asyncio.create_task(late())
    async with store.edit_state() as state:
        gate.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert await store.get("n") == 5
        state.n += 10
        order.append("block")
    await writer
    assert order == ["written", "block", "late"]
    assert await store.get("n") == 6


async def test_two_stores_do_not_block_each_other():
    one, two = store_of(), store_of()
    async with one.edit_state():
        await two.set("a", 1)
        async with two.edit_state() as state:
            state.b = 2
    assert (await two.get_state()).to_dict() == {"a": 1, "b": 2}


async def test_a_cancelled_waiter_leaves_the_lock_to_others():
    store, inside, end = store_of(), asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with store.edit_state() as state:
            inside.set()
            await end.wait()
            state.held = True

    holder = asyncio.create_task(hold())
    await inside.wait()
    waiter = asyncio.create_task(store.set("a", 1))
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    end.set()
    await holder
    await store.set("b", 2)
    assert (await store.get_state()).to_dict() == {"held": True, "b": 2}


def test_a_store_serves_one_event_loop_after_another():
    store = store_of(n=0)

    async def contend() -> None:
        async def add() -> None:
            async with store.edit_state() as state:
                await asyncio.sleep(0)
                state.n += 1

        await asyncio.gather(add(), add(), add())

    asyncio.run(contend())
    asyncio.run(contend())
    assert asyncio.run(store.get("n")) == 6


async def test_what_cannot_be_copied_is_shared_with_the_edit():
    lock = threading.Lock()
    store = store_of(lock=lock, l=[1])
    async with store.edit_state() as state:
        assert state.lock is lock
        state.l.append(2)
    assert await store.get("l") == [1, 2]


# --- observing and undoing ----------------------------------------------------------------------


async def test_every_kind_of_write_is_observed_with_the_fields_it_changed():
    store, edits = watched(store_of(a={"x": 1}, n=1))
    old = await store.get("a")
    await store.set("a.x", 2)
    async with store.edit_state() as state:
        state.n = 2
    await store.set_state(DictState(n=3))
    await store.clear()
    assert [edit.after for edit in edits] == [
        {"a": {"x": 2}},
        {"n": 2},
        {"a": MISSING, "n": 3},
        {"n": MISSING},
    ]
    assert edits[0].before["a"] is old
    assert edits[2].before == {"a": {"x": 2}, "n": 2}


async def test_an_edit_that_changes_nothing_is_not_observed():
    store, edits = watched(store_of(n=1, l=[1]))
    async with store.edit_state():
        pass
    await store.set("n", 1)
    assert edits == []


async def test_true_in_the_place_of_one_is_a_change():
    store, edits = watched(store_of(n=1, l=[1]))
    async with store.edit_state() as state:
        state.n = True
        state.l = [True]
    assert edits[0].after.keys() == {"n", "l"}


async def test_reverting_puts_the_old_values_back():
    store, edits = watched(store_of(a=1))
    await store.set("a", 2)
    await store.set("b", 3)
    for edit in reversed(edits):
        store.revert(edit)
    assert (await store.get_state()).to_dict() == {"a": 1}


async def test_reverting_in_the_order_of_the_writes_does_the_same():
    store, edits = watched(store_of(a=1))
    await store.set("a", 2)
    await store.set("a", 3)
    for edit in edits:
        store.revert(edit)
    assert await store.get("a") == 1


async def test_reverting_keeps_what_was_overwritten_since():
    store, edits = watched(store_of(a=1, b=1))
    async with store.edit_state() as state:
        state.a = state.b = 2
    await store.set("a", 3)
    store.revert(edits[0])
    assert (await store.get_state()).to_dict() == {"a": 3, "b": 1}


async def test_reverting_twice_is_reverting_once():
    store, edits = watched(store_of(a=1))
    await store.set("a", 2)
    store.revert(edits[0])
    await store.set("a", 2)
    store.revert(edits[0])
    assert await store.get("a") == 2


async def test_edits_that_nobody_keeps_are_forgotten():
    store = store_of()
    store.observer = lambda edit: None
    for n in range(100):
        await store.set("a", n)
    assert len((store._open or {})["a"]) == 1  # pyright: ignore[reportPrivateUsage]


# --- journaling -----------------------------------------------------------------------------------


async def test_the_patch_of_a_write_is_small():
    store, edits = watched(store_of(log=list(range(100)), other="x" * 1000))
    store.encoded()
    await store.set("log", [*range(100), 100])
    assert edits[0].patch() == [{"op": "add", "path": "/log/-", "value": 100}]


async def test_a_field_that_was_changed_in_place_is_journaled_all_the_same():
    store, edits = watched(store_of(l=[1]))
    store.encoded()
    held = await store.get("l")
    held.append(2)
    await store.set("l", held)
    assert edits[0].patch() == [{"op": "add", "path": "/l/-", "value": 2}]


async def test_a_patch_never_replaces_the_whole_state():
    store, edits = watched(store_of(keep=1, a=[0] * 20, b=[0] * 20))
    start = store.encoded()
    async with store.edit_state() as state:
        state.a, state.b = [1] * 20, [1] * 20
        for n in range(10):
            state[f"f{n}"] = n
    patch = edits[0].patch()
    assert all(op["path"] != "" for op in patch)
    assert patches.apply(start, patch) == store.encoded()
    assert store.encoded()["keep"] == 1


async def test_a_settled_edit_has_no_second_patch_and_cannot_be_undone():
    store, edits = watched(store_of())
    await store.set("a", 1)
    assert edits[0].patch() == [{"op": "add", "path": "/a", "value": 1}]
    assert edits[0].patch() == []
    store.revert(edits[0])
    assert await store.get("a") == 1


async def test_several_writes_of_one_field_are_one_operation():
    store, edits = watched(store_of())
    for n in range(10):
        await store.set("n", n)
    assert store.patch(edits) == [{"op": "add", "path": "/n", "value": 9}]


async def test_a_write_that_was_overwritten_by_a_journaled_one_adds_nothing():
    store, (first, second) = store_of(), (None, None)
    store, edits = watched(store)
    await store.set("k", 1)
    await store.set("k", 2)
    first, second = edits
    assert second.patch() == [{"op": "add", "path": "/k", "value": 2}]
    assert first.patch() == []
    assert store.encoded() == {"k": 2}
    assert await store.get("k") == 2


async def test_a_snapshot_leaves_out_what_is_not_settled():
    store, edits = watched(store_of(a=1, gone=1))
    async with store.edit_state() as state:
        state.a, state.new = 2, 3
        del state["gone"]
    assert store.encoded() == {"a": 1, "gone": 1}
    edits[0].patch()
    assert store.encoded() == {"a": 2, "new": 3}


async def test_writes_without_an_observer_are_in_the_snapshot():
    store = InMemoryStateStore.from_encoded({"a": 1}, DictState, JSON)
    await store.set("a", 2)
    assert store.encoded() == {"a": 2}
    store, edits = watched(store)
    assert store.encoded() == {"a": 2}
    await store.set("a", 3)
    assert edits[0].patch() == [{"op": "replace", "path": "/a", "value": 3}]


async def test_a_value_that_cannot_be_written_is_named_and_nothing_is_settled():
    store, edits = watched(store_of(a=1))
    async with store.edit_state() as state:
        state.a, state.bad = 2, object()
    with pytest.raises(ValueError, match="Failed to serialize state value for key bad: Failed to"):
        edits[0].patch()
    store.revert(edits[0])
    assert (await store.get_state()).to_dict() == {"a": 1}


async def test_models_and_events_among_the_values_come_back_as_themselves():
    class Found(Event):
        page: int

    found = Found.model_validate({"page": 1, "x": 2})
    serializer = JsonSerializer(allowed_types=[Base, Found])
    store = InMemoryStateStore(DictState(m=Base(n=2), e=[found]), serializer=serializer)
    again = InMemoryStateStore.from_encoded(store.encoded(), DictState, serializer)
    assert await again.get("m") == Base(n=2)
    assert await again.get("e") == [found]


async def test_declared_fields_are_written_by_pydantic():
    class Custom(Derived):
        code: int = Field(default=1, alias="theCode")
        secret: str = "s"

        @field_serializer("secret")
        def _hide(self, value: str) -> str:
            return value.upper()

    store, edits = watched(InMemoryStateStore(Custom(), serializer=JSON))
    start = store.encoded()
    await store.set("when", datetime(2030, 1, 1, tzinfo=UTC))
    await store.set("secret", "t")
    await store.set("code", 5)
    patch = store.patch(edits)
    assert {op["path"]: op["value"] for op in patch} == {
        "/when": "2030-01-01T00:00:00Z",
        "/secret": "T",
        "/code": 5,
    }
    again = InMemoryStateStore.from_encoded(start, Custom, JSON)
    again.apply_patch(patch)
    state = await again.get_state()
    assert (state.when.year, state.secret, state.code) == (2030, "T", 5)


async def test_a_value_that_does_not_fit_its_field_is_refused_when_it_is_journaled():
    store, edits = watched(InMemoryStateStore(Base(), serializer=JSON))
    await store.set("n", "seven")
    with pytest.raises(ValueError, match="Failed to serialize state value for key n"):
        edits[0].patch()
    await store.set("n", "8")  # which pydantic reads as a number
    assert store.patch(edits[1:]) == [{"op": "add", "path": "/n", "value": 8}]


async def test_fields_that_a_type_no_longer_has_are_dropped():
    store = InMemoryStateStore.from_encoded({"n": 1, "old": 2}, Base, JSON)
    assert await store.get_state() == Base(n=1)


_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(0, 3), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from("xyz"), inner, max_size=3)
    ),
    max_leaves=8,
)
_moves = st.lists(
    st.tuples(
        st.sampled_from(["set", "edit", "clear", "journal", "undo", "snapshot"]),
        st.sampled_from("abc"),
        _values,
        st.integers(0, 9),
    ),
    max_size=25,
)


@given(_moves)
def test_the_journal_folds_to_the_state_however_attempts_end(
    moves: list[tuple[str, str, Any, int]],
):
    asyncio.run(_play(moves))


async def _play(moves: list[tuple[str, str, Any, int]]) -> None:
    store, edits = watched(store_of(a=[1]))
    folded = InMemoryStateStore.from_encoded(store.encoded(), DictState, JSON)
    for move, key, value, which in moves:
        if move == "set":
            await store.set(key, value)
        elif move == "edit":
            async with store.edit_state() as state:
                state[key] = value
                state["b"] = [state.get("b"), which]
        elif move == "clear":
            await store.clear()
        elif move == "snapshot":
            assert patches.same(store.encoded(), folded.encoded())
        elif edits:
            edit = edits.pop(which % len(edits))
            if move == "journal":
                folded.apply_patch(edit.patch())
            else:
                store.revert(edit)
        assert patches.same(store.encoded(), folded.encoded())
    for edit in edits[::2]:
        folded.apply_patch(edit.patch())
    for edit in edits:
        store.revert(edit)
    live, again = await store.get_state(), await folded.get_state()
    assert patches.same(live.to_dict(), again.to_dict())


# --- as data --------------------------------------------------------------------------------


def test_a_dynamic_state_is_written_key_by_key():
    assert store_of(a=1, l=[2]).to_dict(JSON) == {
        "store_type": "in_memory",
        "state_type": "DictState",
        "state_module": "stepwell.context.state_store",
        "state_data": {"_data": {"a": "1", "l": "[2]"}},
    }


async def test_states_come_back_from_data():
    serializer = JsonSerializer(allowed_types=[Derived])
    for state in (DictState(a=1, b={"c": [1]}), Derived(n=3, extra={"k": 1})):
        data = InMemoryStateStore(state).to_dict(serializer)
        again: InMemoryStateStore[Any] = InMemoryStateStore.from_dict(data, serializer)
        assert await again.get_state() == state
        assert again.state_type is type(state)
    empty: InMemoryStateStore[Any] = InMemoryStateStore.from_dict({}, serializer)
    assert await empty.get_state() == DictState()


def test_a_state_type_that_is_asked_for_need_not_be_allowed():
    data = InMemoryStateStore(Derived(n=3)).to_dict(JSON)
    assert deserialize_state_from_dict(data, JSON, Derived) == Derived(n=3)
    with pytest.raises(ValueError, match="is not in the serializer's allowed types"):
        deserialize_state_from_dict(data, JSON)
    with pytest.raises(ValueError, match="Expected a state of type Strict"):
        deserialize_state_from_dict(data, JSON.with_types(Derived), Strict)


def test_a_known_unserializable_key_is_left_out_with_a_warning():
    with pytest.warns(UnserializableKeyWarning, match="memory"):
        data = store_of(memory=object(), a=1).to_dict(JSON)
    assert data["state_data"] == {"_data": {"a": "1"}}
    assert store_of(memory=1).to_dict(JSON)["state_data"] == {"_data": {"memory": "1"}}
    with pytest.raises(ValueError, match="Failed to serialize state value for key q: Failed to"):
        store_of(q=object()).to_dict(JSON)


async def test_a_known_unserializable_key_is_left_out_of_the_journal():
    store, edits = watched(store_of())
    await store.set("memory", object())
    with pytest.warns(UnserializableKeyWarning):
        assert edits[0].patch() == []


def test_the_older_form_has_no_store_type():
    parsed = parse_in_memory_state({"state_type": "S", "state_module": "m", "state_data": "1"})
    assert parsed == InMemorySerializedState(state_type="S", state_module="m", state_data="1")
    with pytest.raises(ValueError, match="Cannot parse store_type 'sql' as InMemorySerialized"):
        parse_in_memory_state({"store_type": "sql"})


async def test_checkpoints_differ_by_a_patch_and_can_be_read_back():
    for state, path in ((DictState(l=[1]), "_data"), (Derived(names=["a"]), "value")):
        store: InMemoryStateStore[Any] = InMemoryStateStore(state)
        before = store.checkpoint()
        key = "l" if path == "_data" else "names"
        await store.set(key, [*(await store.get(key)), "b"])
        after = store.checkpoint()
        patch = after.diff(before)
        assert patch == [{"op": "add", "path": f"/state_data/{path}/{key}/-", "value": "b"}]
        assert apply_state_patch(before.to_dict(), patch) == after.to_dict()
        again: InMemoryStateStore[Any] = InMemoryStateStore.from_dict(
            after.to_dict(), JSON, type(state)
        )
        assert await again.get(key) == await store.get(key)
        assert after.state == await store.get_state()


def test_checkpoints_need_json():
    class Other(JsonSerializer.__mro__[1]):  # type: ignore[misc]
        def serialize(self, value: Any) -> str:
            return repr(value)

        def deserialize(self, value: str) -> Any:
            return value

    with pytest.raises(TypeError, match="State checkpoints require a JsonSerializer"):
        StateCheckpoint(DictState(), Other())
    with pytest.raises(TypeError, match="State checkpoints require a JsonSerializer"):
        InMemoryStateStore(DictState(), serializer=Other()).checkpoint()


def test_unsupported_operations_are_refused():
    with pytest.raises(ValueError, match="Unsupported state patch op 'move'"):
        apply_state_patch({}, [{"op": "move", "path": "/a", "from": "/b"}])


def test_the_most_derived_state_type_serves_all():
    class Flow:
        state_types = (Base, Derived, DictState)

    assert infer_state_type([Base, Derived, Base]) is Derived
    assert infer_state_type(Flow()) is Derived
    assert infer_state_type([]) is DictState
    with pytest.raises(ValueError, match="Multiple state types are not in a compatible inher"):
        infer_state_type([Derived, Strict])


def test_the_store_is_what_the_protocol_asks_for():
    store: StateStore[DictState] = InMemoryStateStore(DictState())
    assert isinstance(store, StateStore)


def test_a_store_that_nobody_touches_costs_next_to_nothing():
    store = InMemoryStateStore(state_type=Derived)
    assert store._state is None  # pyright: ignore[reportPrivateUsage]
    seconds = min(timeit.repeat(lambda: InMemoryStateStore(state_type=Derived), number=2000))
    assert seconds / 2000 < 10e-6  # ten times what is measured on a slow machine


# --- writes that have been made before ------------------------------------------------------------


async def test_a_patch_says_which_writes_of_others_it_contains() -> None:
    store = InMemoryStateStore(DictState(count=0, other=0))
    edits: list[StateEdit] = []
    store.observer = edits.append
    await store.set("count", 1)
    await store.set("other", 1)
    await store.set("count", 2)
    upon: list[tuple[StateEdit, str]] = []
    assert store.patch(edits[2:], None, upon)
    assert upon == [(edits[0], "count")]
    assert [op["path"] for op in edits[0].patch()] == []
    assert [op["path"] for op in edits[1].patch()] == ["/other"]


async def test_a_write_that_was_made_before_is_left_out() -> None:
    store = InMemoryStateStore(DictState(count=5, other=0))
    edits: list[StateEdit] = []
    asked: list[str] = []

    def made(field: str) -> bool:
        asked.append(field)
        return field == "count"

    store.observer, store.made = edits.append, made
    await store.set("count", 1)
    assert (await store.get("count"), edits) == (5, [])
    async with store.edit_state() as state:
        state["count"], state["other"] = 6, 7
    assert store.values() == {"count": 5, "other": 7}
    assert [edit.after for edit in edits] == [{"other": 7}]
    await store.set_state(DictState(count=8, third=9))
    assert store.values() == {"count": 5, "third": 9}
    await store.clear()
    assert store.values() == {"count": 5}
    assert asked.count("count") == 4
