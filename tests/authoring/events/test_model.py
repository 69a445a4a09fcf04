"""Events: declared fields, dynamic values, results, failures, and their forms as data."""

from __future__ import annotations

import copy
import sys
import timeit
import warnings
from datetime import UTC, datetime
from typing import Any

import pydantic_core
import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from stepwell.authoring.events.dictlike import DictLikeModel
from stepwell.authoring.events.model import (
    CollectionReleaseEvent,
    Event,
    HumanResponseEvent,
    IdleReleasedEvent,
    InputRequiredEvent,
    InternalDispatchEvent,
    SerializableEvent,
    SerializableEventType,
    SerializableException,
    SerializableOptionalEvent,
    StartEvent,
    StepFailedEvent,
    StepState,
    StepStateChanged,
    StopEvent,
    UnhandledEvent,
    WorkflowCancelledEvent,
    WorkflowErrorEvent,
    WorkflowFailedEvent,
    WorkflowIdleEvent,
    WorkflowTimedOutEvent,
)
from stepwell.authoring.events.naming import (
    UnreconstructedException,
    dump_exception,
    known_types,
    load_exception,
    qualified_name,
)
from stepwell.errors import WorkflowRuntimeError


class A(Event):
    n: int
    _secret: int = PrivateAttr(default=3)


class Plain(Event):
    n: int


def make(cls: type[Any], **data: Any) -> Any:
    return cls(**data)


# --- declared and dynamic ---------------------------------------------------------------------


def test_what_is_not_declared_is_dynamic():
    event = make(A, n=1, extra=2)
    assert (event.n, event.extra, event["extra"], event.get("extra")) == (1, 2, 2, 2)
    assert event._data == {"extra": 2}
    assert event.to_dict() == {"extra": 2}


def test_the_mapping_face_shows_dynamic_values_alone():
    event = make(A, n=1, x=2, y=3)
    assert (len(event), list(event), "x" in event, "n" in event) == (2, ["x", "y"], True, False)
    assert list(event.keys()) == ["x", "y"]
    assert list(event.values()) == [2, 3]
    assert dict(event.items()) == dict(event) == {"x": 2, "y": 3}
    assert event.get("n", "default") == "default"
    with pytest.raises(KeyError):
        event["n"]


def test_an_event_is_true():
    assert bool(Event())


def test_missing_attributes_say_so():
    with pytest.raises(AttributeError, match="'A' object has no attribute 'y'"):
        _ = make(A, n=1).y


def test_unknown_names_are_assigned_as_dynamic_values():
    event = make(A, n=1)
    event.zz = 1
    event["yy"] = 2
    event.items = 3
    event._loose = 4
    assert event.to_dict() == {"zz": 1, "yy": 2, "items": 3, "_loose": 4}
    assert event.zz == 1
    assert event._loose == 4
    assert event.model_dump() == {"n": 1, "_data": event.to_dict()}
    del event.zz
    del event["yy"]
    assert event.to_dict() == {"items": 3, "_loose": 4}


def test_declared_names_are_assigned_as_fields():
    event = make(A, n=1)
    event.n = 5
    assert (event.n, event.to_dict()) == (5, {})
    event["n"] = 6  # the key face does not know fields
    assert (event.n, event["n"], event.model_dump()["n"]) == (5, 6, 5)


def test_private_attributes_are_set_by_keyword():
    assert make(A, n=1)._secret == 3
    event = make(A, n=1, _secret=9)
    assert (event._secret, event.to_dict(), event.model_dump()) == (9, {}, {"n": 1})
    event._secret = 10
    assert (event._secret, event.to_dict()) == (10, {})


def test_fields_may_be_called_like_the_mapping_face_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Box(Event):
            items: list[int]  # type: ignore[assignment]
            keys: str = "k"  # type: ignore[assignment]

    box = make(Box, items=[1], values=2)
    assert (box.items, box.keys, box["values"]) == ([1], "k", 2)
    with pytest.raises(ValidationError):
        make(Box)


def test_validators_and_aliases_work():
    class Checked(Event):
        n: int = Field(alias="theN")

        @field_validator("n")
        @classmethod
        def _double(cls, value: int) -> int:
            return value * 2

    event = make(Checked, theN=2, n=7)
    assert (event.n, event.to_dict()) == (4, {"n": 7})
    assert event.model_dump() == {"n": 4, "_data": {"n": 7}}


def test_constructors_of_subclasses_work():
    class Made(Event):
        n: int

        def __init__(self, base: int = 1, **data: Any) -> None:
            super().__init__(n=base + 1, **data)

    assert make(Made, base=4, x=1).model_dump() == {"n": 5, "_data": {"x": 1}}


def test_closed_models_stay_closed():
    class Closed(Event, extra="forbid"):
        n: int = 0

    class Deaf(Event, extra="ignore"):
        n: int = 0

    with pytest.raises(ValidationError):
        make(Closed, x=1)
    deaf = make(Deaf, x=1)
    assert (len(deaf), deaf.model_dump()) == (0, {"n": 0})
    with pytest.raises(ValueError, match="no field"):
        deaf.y = 1
    with pytest.raises(TypeError, match="takes no values"):
        deaf["y"] = 1


def test_frozen_events_cannot_be_assigned():
    class Frozen(Event):
        model_config = ConfigDict(frozen=True)
        n: int = 0

    event = make(Frozen, x=1)
    for name in ("n", "x"):
        with pytest.raises(ValidationError):
            setattr(event, name, 2)


# --- as data ----------------------------------------------------------------------------------


def test_data_holds_fields_and_dynamic_values_apart():
    event = make(A, n=1, extra=2)
    assert event.model_dump() == {"n": 1, "_data": {"extra": 2}}
    assert make(A, n=1).model_dump() == {"n": 1}
    assert pydantic_core.to_json(event) == b'{"n":1,"_data":{"extra":2}}'
    assert make(A, n=1, t=datetime(2020, 1, 1)).model_dump_json() == (
        '{"n":1,"_data":{"t":"2020-01-01T00:00:00"}}'
    )


@pytest.mark.parametrize("event", [make(A, n=1, extra=2), make(A, n=1), make(Plain, n=1, x=[1])])
def test_data_comes_back_by_every_way(event: Any):
    cls = type(event)
    ways = [
        cls.model_validate(event.model_dump()),
        cls.model_validate_json(event.model_dump_json()),
        TypeAdapter(cls).validate_python(event.model_dump()),
        cls(**event.model_dump()),
        copy.copy(event),
        copy.deepcopy(event),
        event.model_copy(),
    ]
    for again in ways:
        assert again == event
        assert again.model_dump() == event.model_dump()


def test_undeclared_data_becomes_dynamic_too():
    for event in (
        Plain.model_validate({"n": 1, "x": 2, "_data": {"y": 3}}),
        Plain.model_construct(n=1, x=2, y=3),
        make(Plain, n=1, y=3).model_copy(update={"x": 2}),
    ):
        assert event.to_dict() == {"x": 2, "y": 3}
        assert event.model_dump() == {"n": 1, "_data": event.to_dict()}


def test_copies_have_dynamic_values_of_their_own():
    event = make(Plain, n=1, x=2)
    for again in (copy.copy(event), event.model_copy(), Plain.model_validate(event.model_dump())):
        again["x"] = 3
        assert event["x"] == 2


def test_events_inside_of_models_keep_their_dynamic_values():
    class Holder(BaseModel):
        event: Plain

    holder = Holder.model_validate({"event": {"n": 1, "_data": {"x": 2}, "y": 3}})
    assert holder.event.to_dict() == {"x": 2, "y": 3}
    assert Holder.model_validate_json(holder.model_dump_json()) == holder


def test_equality_sees_everything():
    assert make(Plain, n=1, x=2) == make(Plain, n=1, x=2)
    assert make(Plain, n=1, x=2) != make(Plain, n=1, x=3)
    assert make(Plain, n=1) != make(A, n=1)
    loose = TypeAdapter(Plain).validate_python({"n": 1, "x": 2})
    assert loose == make(Plain, n=1, x=2)


def test_the_repr_shows_everything():
    assert repr(make(A, n=1, extra=2)) == "A(n=1, extra=2)"


def test_the_schema_lists_what_is_declared():
    assert Plain.model_json_schema() == {
        "properties": {"n": {"title": "N", "type": "integer"}},
        "required": ["n"],
        "title": "Plain",
        "type": "object",
    }


def test_the_view_of_dynamic_values_cannot_be_written():
    with pytest.raises(TypeError):
        make(Plain, n=1)._data["x"] = 1


# --- stop events ------------------------------------------------------------------------------


def test_the_result_of_a_stop_event():
    assert StopEvent(result=5).result == StopEvent(5).result == 5
    assert StopEvent().result is None
    assert repr(StopEvent(result={"a": 1})) == "StopEvent(result={'a': 1})"
    assert str(StopEvent(result={"a": 1})) == "{'a': 1}"
    assert StopEvent(result=1, foo=2).model_dump() == {"result": 1, "_data": {"foo": 2}}
    assert StopEvent(result=None).model_dump() == StopEvent().model_dump() == {}


def test_a_result_comes_back_and_is_no_dynamic_value():
    event = StopEvent(result=[1], foo=2)
    again = StopEvent.model_validate_json(event.model_dump_json())
    assert again == event
    assert (again.result, again.to_dict()) == ([1], {"foo": 2})
    assert StopEvent.model_validate({"result": None}) == StopEvent()


def test_a_result_can_be_assigned():
    event = StopEvent()
    event.result = 5  # type: ignore[misc]
    assert (event.result, event.to_dict(), event.model_dump()) == (5, {}, {"result": 5})


def test_subclasses_declare_or_compute_their_result():
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Declared(StopEvent):
            result: str | None  # type: ignore[assignment]

    class Computed(StopEvent):
        n: int = 2

        def _get_result(self) -> int:
            return self.n * 10

    assert make(Declared, result="x").result == "x"
    assert make(Declared, result=None).model_dump() == {"result": None}
    with pytest.raises(ValidationError):
        make(Declared)
    assert (Computed().result, Computed().model_dump(), str(Computed())) == (20, {"n": 2}, "20")


def test_the_kinds_of_event():
    for cls in (
        WorkflowTimedOutEvent,
        WorkflowCancelledEvent,
        IdleReleasedEvent,
        WorkflowFailedEvent,
    ):
        assert issubclass(cls, StopEvent)
    for cls in (WorkflowIdleEvent, UnhandledEvent, StepStateChanged):
        assert issubclass(cls, InternalDispatchEvent)
    for cls in (StartEvent, InputRequiredEvent, HumanResponseEvent, CollectionReleaseEvent):
        assert issubclass(cls, Event)
        assert not issubclass(cls, StopEvent)
    assert [state.value for state in StepState] == ["preparing", "running", "not_running"]
    assert UnhandledEvent(event_type="A", qualified_name="m.A", idle=True).model_dump() == {
        "event_type": "A",
        "qualified_name": "m.A",
        "step_name": None,
        "idle": True,
    }


# --- failures ---------------------------------------------------------------------------------


class AppError(Exception):
    pass


class Odd(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} {b}")


def failed(error: Exception) -> StepFailedEvent:
    return StepFailedEvent(
        step_name="s",
        input_event=make(Event, a=1),
        exception=error,
        attempts=2,
        elapsed_seconds=0.5,
        failed_at=datetime(2020, 1, 1, tzinfo=UTC),
    )


def test_a_failure_is_written_with_names():
    assert failed(KeyError("zz")).model_dump(mode="json") == {
        "step_name": "s",
        "input_event": {
            "__is_pydantic": True,
            "value": {"_data": {"a": 1}},
            "qualified_name": "stepwell.events.Event",
        },
        "exception": {"exception_type": "builtins.KeyError", "exception_message": "'zz'"},
        "attempts": 2,
        "elapsed_seconds": 0.5,
        "failed_at": "2020-01-01T00:00:00Z",
    }


def test_a_failure_comes_back():
    event = failed(KeyError("zz"))
    again = StepFailedEvent.model_validate_json(event.model_dump_json())
    assert again.input_event == event.input_event
    assert repr(again.exception) == "KeyError('zz')"
    assert failed(error := AppError("x")).exception is error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        KeyError(3),
        KeyError("it's"),
        OSError("x"),
        TimeoutError("t"),
        WorkflowRuntimeError("w"),
        Exception(""),
    ],
)
def test_known_exceptions_come_back_as_themselves(error: Exception):
    again = load_exception(dump_exception(error))
    assert (type(again), str(again)) == (type(error), str(error))


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "subprocess.Popen",
        "builtins.eval",
        "builtins.SystemExit",
        "builtins.print",
        "antigravity.Error",
    ],
)
def test_other_names_stay_data(name: str):
    before = set(sys.modules)
    again = load_exception({"exception_type": name, "exception_message": "rm -rf"})
    assert type(again) is UnreconstructedException
    assert (str(again), again.original_type) == ("rm -rf", name)
    assert dump_exception(again) == {"exception_type": name, "exception_message": "rm -rf"}
    assert set(sys.modules) == before


def test_exceptions_that_want_more_than_a_message_are_not_rebuilt():
    known: dict[str, type[Exception]] = {"app.Odd": Odd}
    written = {"exception_type": "app.Odd", "exception_message": "1 2"}
    assert type(load_exception(written, known)) is UnreconstructedException
    unicode = {"exception_type": "builtins.UnicodeDecodeError", "exception_message": "x"}
    assert type(load_exception(unicode)) is UnreconstructedException


def test_given_exceptions_are_rebuilt():
    data = failed(AppError("x")).model_dump(mode="json")
    name = qualified_name(AppError)
    by_context = StepFailedEvent.model_validate(data, context={"exceptions": {name: AppError}})
    with known_types(exceptions={name: AppError}):
        by_block = StepFailedEvent.model_validate(data)
    unknown = StepFailedEvent.model_validate(data).exception
    assert type(by_context.exception) is type(by_block.exception) is AppError
    assert isinstance(unknown, UnreconstructedException)
    assert unknown.original_type == name


def test_an_error_event_is_an_exception_or_a_message():
    error = KeyError("x")
    assert WorkflowErrorEvent(error).exception is error
    assert WorkflowErrorEvent(error=error).exception is error
    text = WorkflowErrorEvent("no page", page=3)
    assert isinstance(text.exception, WorkflowRuntimeError)
    assert (str(text.exception), text["page"]) == ("no page", 3)
    assert str(WorkflowErrorEvent().exception) == "The step failed."
    again = WorkflowErrorEvent.model_validate_json(WorkflowErrorEvent(error).model_dump_json())
    assert repr(again.exception) == "KeyError('x')"
    assert WorkflowErrorEvent.model_validate_json(text.model_dump_json()) == text
    with pytest.raises(TypeError, match="takes one error"):
        make_any: Any = WorkflowErrorEvent
        make_any(error, error)


# --- field types ------------------------------------------------------------------------------


class Fields(BaseModel):
    event: SerializableEvent
    maybe: SerializableOptionalEvent = None
    kind: SerializableEventType
    error: SerializableException


def test_field_types_come_back_through_the_context():
    value = Fields(event=make(Plain, n=1, x=2), kind=Plain, error=AppError("e"))
    data = value.model_dump(mode="json")
    assert data["kind"] == qualified_name(Plain)
    context = {
        "types": {qualified_name(Plain): Plain},
        "exceptions": {qualified_name(AppError): AppError},
    }
    again = Fields.model_validate(data, context=context)
    assert (again.event, again.maybe, again.kind) == (value.event, None, Plain)
    assert type(again.error) is AppError
    with pytest.raises(ValidationError, match="No type is registered as"):
        Fields.model_validate(data)


@pytest.mark.parametrize("name", ["os.system", "subprocess.Popen", "builtins.eval"])
def test_field_types_never_import(name: str):
    context = {"types": {qualified_name(Plain): Plain}}
    good = Fields(event=Event(), kind=Event, error=ValueError()).model_dump(mode="json")
    for bad in (
        {**good, "kind": name},
        {**good, "event": {"__is_pydantic": True, "value": {}, "qualified_name": name}},
    ):
        with pytest.raises(ValidationError, match=f"No type is registered as '{name}'"):
            Fields.model_validate(bad, context=context)


def test_field_types_refuse_other_values():
    good: dict[str, Any] = {"event": Event(), "kind": Event, "error": ValueError()}
    for key in ("event", "maybe", "kind", "error"):
        with pytest.raises(ValidationError):
            Fields.model_validate({**good, key: 3})


def test_an_allowed_class_that_is_no_event_is_no_event():
    class Other(DictLikeModel):
        pass

    with pytest.raises(ValidationError, match="No type is registered"):
        Fields.model_validate(
            {"event": Event(), "kind": "x.Other", "error": ValueError()},
            context={"types": {"x.Other": Other}},
        )


def test_making_an_event_costs_about_what_a_plain_model_costs():
    class Bare(BaseModel):
        n: int

    def cost(make_one: Any) -> float:
        return min(timeit.repeat(make_one, number=2000, repeat=5))

    assert cost(lambda: Plain(n=1)) < 4 * cost(lambda: Bare(n=1))
    assert cost(lambda: Event()) < 4 * cost(lambda: Bare(n=1))
