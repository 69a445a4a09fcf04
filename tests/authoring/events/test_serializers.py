"""Values as text and back; names in data choose among given classes and never import."""

from __future__ import annotations

import base64
import builtins
import importlib
import json
import pickle  # noqa: TID251 - old contexts are made with it
import sys
from datetime import datetime
from typing import Any

import pytest
from pydantic import BaseModel

from stepwell.authoring.events.model import (
    Event,
    SerializableEvent,
    SerializableException,
    StopEvent,
    WorkflowFailedEvent,
)
from stepwell.authoring.events.naming import qualified_name
from stepwell.authoring.events.serializers import (
    JsonPickleSerializer,
    JsonSerializer,
    PickleSerializer,
    PickleSerializerWarning,
)
from stepwell.errors import UnknownType, UnserializableValue


class Page(BaseModel):
    number: int
    when: datetime = datetime(2020, 1, 1)


class Found(Event):
    page: Page


class Outer(BaseModel):
    event: SerializableEvent
    error: SerializableException


class AppError(Exception):
    pass


@pytest.fixture
def no_imports(monkeypatch: pytest.MonkeyPatch):
    def refuse(name: str, *args: object, **kwargs: object) -> object:
        raise AssertionError(f"import of {name}")

    monkeypatch.setattr(importlib, "import_module", refuse)
    monkeypatch.setattr(builtins, "__import__", _guard(__import__))


def _guard(real: Any) -> Any:
    def guarded(name: str, *args: Any, **kwargs: Any) -> Any:
        assert name in sys.modules, f"import of {name}"
        return real(name, *args, **kwargs)

    return guarded


def test_models_are_written_with_their_names():
    assert json.loads(JsonSerializer().serialize({"p": [Page(number=1)]})) == {
        "p": [
            {
                "__is_pydantic": True,
                "value": {"number": 1, "when": "2020-01-01T00:00:00"},
                "qualified_name": qualified_name(Page),
            }
        ]
    }


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1.5,
        "ü",
        [1, {"a": [None]}],
        Page(number=1),
        {"x": [Found(page=Page(number=2))]},
        StopEvent(result=3),
    ],
)
def test_values_come_back(value: Any):
    serializer = JsonSerializer(allowed_types=[Page, Found])
    assert serializer.deserialize(serializer.serialize(value)) == value


def test_dynamic_values_come_back():
    serializer = JsonSerializer()
    again = serializer.deserialize(serializer.serialize(Event(a=1, b=[2])))
    assert again == Event(a=1, b=[2])
    assert again.b == [2]


def test_tuples_become_lists_and_keys_become_text():
    assert JsonSerializer().serialize({7: (2, 3), True: None}) == '{"7": [2, 3], "true": null}'


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", Page, datetime(2020, 1, 1)])
def test_what_json_cannot_say_is_refused(value: object):
    with pytest.raises(ValueError, match="Failed to serialize value: <class"):
        JsonSerializer().serialize(value)


def test_the_refusal_says_where():
    with pytest.raises(UnserializableValue, match=r"at 'a\.1\.b'") as caught:
        JsonSerializer().serialize({"a": [0, {"b": object()}]})
    assert caught.value.path == "a.1.b"
    with pytest.raises(ValueError, match=r"Failed to serialize value: <class .*Event"):
        JsonSerializer().serialize(Event(x=object()))
    with pytest.raises(ValueError, match="Failed to serialize value: <class 'tuple'>"):
        JsonSerializer().serialize({(1, 2): 3})


# --- names ------------------------------------------------------------------------------------

DANGEROUS = [
    "os.system",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.object",
    "antigravity.fly",
    "xmlrpc.client.ServerProxy",
    f"{__name__}.Page",
]


@pytest.mark.parametrize("name", DANGEROUS)
@pytest.mark.parametrize("tag", ["__is_pydantic", "__is_component"])
@pytest.mark.usefixtures("no_imports")
def test_names_that_were_not_allowed_are_refused_and_not_imported(name: str, tag: str):
    before = set(sys.modules)
    text = json.dumps({"x": [{tag: True, "value": {"number": 1}, "qualified_name": name}]})
    with pytest.raises(UnknownType) as caught:
        JsonSerializer().deserialize(text)
    assert str(caught.value) == (
        f"Class {name} is not in the serializer's allowed types. Pass "
        f"JsonSerializer(allowed_types=[{name}]) on the workflow or server to allow it."
    )
    assert set(sys.modules) == before


@pytest.mark.parametrize("name", DANGEROUS[:-1])
@pytest.mark.usefixtures("no_imports")
def test_names_inside_of_fields_are_refused_and_not_imported(name: str):
    before = set(sys.modules)
    serializer = JsonSerializer(allowed_types=[Outer])
    value = {
        "event": {"__is_pydantic": True, "value": {}, "qualified_name": name},
        "error": {"exception_type": name, "exception_message": "m"},
    }
    data = {"__is_pydantic": True, "value": value, "qualified_name": qualified_name(Outer)}
    with pytest.raises(ValueError, match=f"No type is registered as '{name}'"):
        serializer.deserialize_value(data)
    assert set(sys.modules) == before


def test_names_inside_of_fields_are_looked_up_among_the_allowed_types():
    serializer = JsonSerializer(allowed_types=[Outer, Found, AppError])
    outer = Outer(event=Found(page=Page(number=1)), error=AppError("x"))
    again = serializer.deserialize(serializer.serialize(outer))
    assert again.event == outer.event
    assert type(again.error) is AppError


def test_a_block_makes_the_allowed_types_known_to_pydantic():
    serializer = JsonSerializer(allowed_types=[AppError])
    data = WorkflowFailedEvent(step_name="s", exception=AppError("x")).model_dump(mode="json")
    with serializer.validation_context() as context:
        inside = WorkflowFailedEvent.model_validate(data)
    by_context = WorkflowFailedEvent.model_validate(data, context=context)
    outside = WorkflowFailedEvent.model_validate(data)
    assert type(inside.exception) is type(by_context.exception) is AppError
    assert type(outside.exception) is not AppError


def test_more_types_make_a_new_serializer():
    first = JsonSerializer(allowed_types=[Page])
    second = first.with_types(Found)
    assert second.resolve_class(qualified_name(Page)) is Page
    assert second.resolve_class(qualified_name(Found)) is Found
    with pytest.raises(UnknownType):
        first.resolve_class(qualified_name(Found))


def test_events_saved_under_their_older_names_are_understood():
    assert JsonSerializer().resolve_class("workflows.events.StopEvent") is StopEvent
    assert JsonSerializer().resolve_class("stepwell.events.StopEvent") is StopEvent


def test_allowed_types_are_classes():
    with pytest.raises(TypeError, match=r"allowed_types takes classes, not 'os\.system'"):
        JsonSerializer(allowed_types=["os.system"])  # type: ignore[list-item]


def test_an_allowed_class_that_is_no_model_is_not_made():
    class Plain:
        pass

    name = qualified_name(Plain)
    with pytest.raises(ValueError, match="is not a pydantic model"):
        JsonSerializer(allowed_types=[Plain]).deserialize_value(
            {"__is_pydantic": True, "value": {}, "qualified_name": name}
        )


def test_components_write_themselves():
    class Tool(BaseModel):
        n: int

        @classmethod
        def class_name(cls) -> str:
            return "Tool"

        def to_dict(self) -> dict[str, int]:
            return {"times two": self.n * 2}

        @classmethod
        def from_dict(cls, data: dict[str, int]) -> Tool:
            return cls(n=data["times two"] // 2)

    serializer = JsonSerializer(allowed_types=[Tool])
    assert serializer.serialize_value(Tool(n=2))["__is_component"] is True
    assert serializer.deserialize(serializer.serialize([Tool(n=2)])) == [Tool(n=2)]


# --- pickle -------------------------------------------------------------------------------------


def test_pickle_warns_where_it_is_made():
    with pytest.warns(PickleSerializerWarning, match="runs code") as caught:
        PickleSerializer()
    assert caught[0].filename == __file__
    assert issubclass(PickleSerializerWarning, UserWarning)
    assert JsonPickleSerializer is PickleSerializer


@pytest.mark.filterwarnings("ignore::stepwell.context.serializers.PickleSerializerWarning")
def test_pickle_is_used_only_where_json_has_no_form():
    serializer = PickleSerializer(allowed_types=[Page])
    assert serializer.serialize([1]) == "[1]"
    assert serializer.deserialize(serializer.serialize({1, 2})) == {1, 2}
    assert serializer.deserialize(serializer.serialize(Page(number=1))) == Page(number=1)
    assert isinstance(serializer.with_types(Found), PickleSerializer)
    old = base64.b64encode(pickle.dumps({"a": {1}})).decode()
    assert serializer.deserialize(old) == {"a": {1}}


def test_json_does_not_read_pickles():
    with pytest.raises(ValueError, match="Expecting value"):
        JsonSerializer().deserialize(base64.b64encode(pickle.dumps({1})).decode())
