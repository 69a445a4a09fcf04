"""States as data: what is written of them, whole or field by field, and how they are read.

The theory: a state is a pydantic model. Its declared fields are pydantic's business, which knows
how to write and check them; its dynamic values are the serializer's, which puts class names
beside models. A state is written in two shapes: whole (`to_dict`, what a saved context holds)
and by top-level field (what a journal holds, so that one changed field costs one field).

Reading follows the rule of `naming`: no class is found by importing.

This module refuses to know who holds a state and when it changes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast, runtime_checkable

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from stepwell import patch as patches
from stepwell.authoring.events.dictlike import DictLikeModel
from stepwell.authoring.events.naming import qualified_name
from stepwell.authoring.events.serializers import BaseSerializer, JsonSerializer
from stepwell.authoring.events.state_path import fields_of, put_field

StateT = TypeVar("StateT", bound=BaseModel)

KNOWN_UNSERIALIZABLE_KEYS = ("memory",)
"""Dynamic values under these names are left out, with a warning, when they cannot be written."""


class UnserializableKeyWarning(Warning):
    """A value was left out of a written state and must be set again after reading it."""


class DictState(DictLikeModel):
    """The state of a workflow that declares none: any names, any values.

    Example:
        >>> state = DictState(count=1)
        >>> state.count += 1
        >>> state["count"]
        2
    """

    if TYPE_CHECKING:

        def __init__(self, /, **data: Any) -> None: ...


class InMemorySerializedState(BaseModel):
    """What `InMemoryStateStore.to_dict` returns.

    Attributes:
        store_type: always `in_memory`.
        state_type: class name of the state.
        state_module: its module.
        state_data: `{"_data": {key: text}}` for `DictState`, else one text.
    """

    store_type: Literal["in_memory"] = "in_memory"
    state_type: str = "DictState"
    state_module: str = "stepwell.context.state_store"
    state_data: Any = None


@runtime_checkable
class HasStateTypes(Protocol):
    """Something whose steps ask for states, such as a workflow."""

    @property
    def state_types(self) -> Iterable[type[BaseModel]]:
        """The types they ask for."""
        ...


def infer_state_type(source: HasStateTypes | Iterable[type[BaseModel]]) -> type[BaseModel]:
    """Return the one state type that serves all that are asked for: the most derived.

    Args:
        source: the types, or something that has them as `state_types`.

    Raises:
        ValueError: two of the types do not derive from one another.

    Example:
        >>> class Mine(DictState): ...
        >>> infer_state_type([DictState, Mine]).__name__, infer_state_type([]).__name__
        ('Mine', 'DictState')
    """
    asked = source.state_types if isinstance(source, HasStateTypes) else source
    types = list(dict.fromkeys(asked))
    # Who asks for no more than the default is content with any type.
    types = [cls for cls in types if cls is not DictState] or types
    if not types:
        return DictState
    most = max(types, key=lambda cls: len(cls.__mro__))
    if not all(issubclass(most, cls) for cls in types):
        names = ", ".join(cls.__name__ for cls in types)
        raise ValueError(
            "Multiple state types are not in a compatible inheritance hierarchy: "
            f"{names}. Let one of them derive from all others."
        )
    return most


# --- whole states -----------------------------------------------------------------------------


def _names(state: BaseModel) -> dict[str, str]:
    module, _, name = qualified_name(type(state)).rpartition(f".{type(state).__qualname__}")
    return {"state_type": type(state).__qualname__, "state_module": module or name}


def state_to_dict(state: BaseModel, serializer: BaseSerializer) -> dict[str, Any]:
    """Write a state whole.

    Raises:
        ValueError: a value cannot be written; the message names its key.
    """
    data: Any
    if type(state) is DictState:
        written = {
            key: _guarded(key, lambda value=value: serializer.serialize(value))
            for key, value in state.items()
        }
        data = {"_data": {key: text for key, text in written.items() if text is not None}}
    else:
        data = serializer.serialize(state)
    return {"store_type": "in_memory", **_names(state), "state_data": data}


def _guarded(key: str, write: Any) -> Any:
    """What `write()` returns; None, with a warning, for keys known not to be writable."""
    try:
        return write()
    except (ValueError, TypeError) as error:
        if key not in KNOWN_UNSERIALIZABLE_KEYS:
            raise ValueError(f"Failed to serialize state value for key {key}: {error}") from error
    warnings.warn(
        f"The state value for key {key} cannot be serialized and is left out; set it again "
        "after the state is restored.",
        UnserializableKeyWarning,
        stacklevel=2,
    )
    return None


def parse_in_memory_state(data: Mapping[str, Any]) -> InMemorySerializedState:
    """Check the form of what `to_dict` returned; data without `store_type` is the older form.

    Raises:
        ValueError: it comes from another kind of store.
    """
    kind = data.get("store_type", "in_memory")
    if kind != "in_memory":
        raise ValueError(
            f"Cannot parse store_type '{kind}' as InMemorySerializedState. "
            "Use the appropriate store's from_dict() method."
        )
    return InMemorySerializedState.model_validate(dict(data))


def deserialize_state_from_dict(
    serialized_state: Mapping[str, Any],
    serializer: BaseSerializer,
    state_type: type[BaseModel] | None = None,
) -> BaseModel:
    """Read a state written by `to_dict` or by a `StateCheckpoint`.

    Args:
        serialized_state: what was written; empty for a new state.
        serializer: reads the values; a `JsonSerializer` need not be given `state_type`.
        state_type: the class of the state. Without it the name in the data is looked up among
            the types of the serializer.

    Raises:
        ValueError: the data names an unknown class or does not fit it.
    """
    if state_type is not None and isinstance(serializer, JsonSerializer):
        serializer = serializer.with_types(state_type)
    parsed = parse_in_memory_state(serialized_state)
    data = parsed.state_data
    if data is None:
        return (state_type or DictState)()
    if isinstance(data, Mapping):
        fields = cast("Mapping[str, Any]", data)
        if "_data" in fields and "qualified_name" not in fields:
            values = cast("Mapping[str, Any]", fields["_data"])
            read = _tree_reader(serializer) if "_tree" in fields else serializer.deserialize
            cls = state_type if state_type and issubclass(state_type, DictState) else DictState
            return cls(**{key: read(value) for key, value in values.items()})
        state = _tree_reader(serializer)(dict(fields))
    else:
        state = serializer.deserialize(data)
    expected = state_type or BaseModel
    if not isinstance(state, expected):
        raise ValueError(f"Expected a state of type {expected.__name__}, got {type(state)}")
    return state


def _tree_reader(serializer: BaseSerializer) -> Any:
    if not isinstance(serializer, JsonSerializer):
        raise TypeError("State checkpoints require a JsonSerializer")
    return serializer.deserialize_value


class StateCheckpoint:
    """A state at one moment, as data that can be compared with another moment.

    Args:
        state: the state; it is copied.
        serializer: how its values are written.

    Raises:
        TypeError: the serializer is not a JsonSerializer.

    Example:
        >>> before = StateCheckpoint(DictState(n=1), JsonSerializer())
        >>> after = StateCheckpoint(DictState(n=2), JsonSerializer())
        >>> after.diff(before)
        [{'op': 'replace', 'path': '/state_data/_data/n', 'value': 2}]
    """

    def __init__(self, state: BaseModel, serializer: BaseSerializer) -> None:
        if not isinstance(serializer, JsonSerializer):
            raise TypeError("State checkpoints require a JsonSerializer")
        self._data: dict[str, Any] = {"store_type": "in_memory", **_names(state)}
        self.state = state.model_copy()
        if type(state) is DictState:
            values = encode_fields(type(state), fields_of(state), serializer)
            self._data["state_data"] = {"_tree": "dict", "_data": values}
        else:
            tree = serializer.serialize_value(state)
            self._data["state_data"] = {"_tree": "model", **tree}

    def to_dict(self) -> dict[str, Any]:
        """Return the state as data, which `InMemoryStateStore.from_dict` reads."""
        return dict(self._data)

    def diff(self, since: StateCheckpoint) -> list[dict[str, Any]]:
        """Return the JSON patch that turns `since.to_dict()` into `to_dict()`."""
        return patches.diff(since._data, self._data)


def apply_state_patch(state: dict[str, Any], patch: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the data of a checkpoint with a patch applied to it.

    Raises:
        ValueError: an operation is not supported or does not fit.
    """
    return patches.apply(state, patch)


# --- by field ---------------------------------------------------------------------------------


def encode_fields(
    state_type: type[BaseModel], values: Mapping[str, Any], serializer: BaseSerializer
) -> dict[str, Any]:
    """Write top-level fields of a state, each by itself.

    Returns:
        JSON by field name. Keys known not to be writable are left out, with a warning.

    Raises:
        ValueError: a value cannot be written, or does not fit its field.
    """
    encoded: dict[str, Any] = {}
    for key, value in values.items():
        if key in state_type.model_fields:
            encoded[key] = _guarded(
                key, lambda key=key, value=value: _encode_declared(state_type, key, value)
            )
            continue
        written = _guarded(key, lambda value=value: (_encode_dynamic(value, serializer),))
        if written is not None:
            encoded[key] = written[0]
    return encoded


def _encode_declared(state_type: type[BaseModel], key: str, value: Any) -> Any:
    holder = state_type.model_construct()
    vars(holder)[key] = value
    try:
        dumped = holder.model_dump(mode="json", include={key}, by_alias=False, warnings="error")
    except PydanticSerializationError:
        # The value is not of the field's type. What pydantic would accept on reading is fine.
        try:
            state_type.__pydantic_validator__.validate_assignment(holder, key, value)
        except ValidationError as error:
            raise ValueError(str(error)) from error
        dumped = holder.model_dump(mode="json", include={key}, by_alias=False)
    if key not in dumped:
        raise ValueError(f"{state_type.__name__} does not write the field {key} under its name")
    return dumped[key]


def _encode_dynamic(value: Any, serializer: BaseSerializer) -> Any:
    if isinstance(serializer, JsonSerializer):
        return serializer.serialize_value(value)
    return serializer.serialize(value)


def decode_fields(
    state_type: type[StateT], encoded: Mapping[str, Any], serializer: BaseSerializer
) -> StateT:
    """Build a state from fields written by `encode_fields`; absent ones get their defaults.

    Fields that the type no longer has are dropped, if it takes no others.

    Raises:
        ValueError: a value does not fit its field, or names an unknown class.
    """
    declared = {key: value for key, value in encoded.items() if key in state_type.model_fields}
    with serializer.validation_context() as context:
        state = state_type.model_validate(declared, context=context, by_alias=False, by_name=True)
        if state_type.model_config.get("extra") == "allow":
            decode = (
                serializer.deserialize_value
                if isinstance(serializer, JsonSerializer)
                else serializer.deserialize
            )
            for key, value in encoded.items():
                if key not in declared:
                    put_field(state, key, decode(value))
    return state
