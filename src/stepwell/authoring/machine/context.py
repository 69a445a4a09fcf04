"""The run's Context: a fresh object for every attempt, kept as JSON in the run's state.

The theory: what is committed is data, and an attempt works on a copy. The copy is made from the
data when the attempt begins, and what woke the step (the payload of a signal, say) is merged into
it; when the attempt succeeds, the copy is written, checked by reading it back, and committed with
the attempt's outcome. When the attempt fails nothing has happened, and the next one merges again.

Checks are pydantic's: a value that the Context does not allow is refused where it is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar, cast, get_args

from pydantic import AliasChoices, BaseModel, Secret, SecretBytes, SecretStr, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from stepwell.authoring.strict import few, what_there_is
from stepwell.errors import ContextStateError, UnserializableValue

M = TypeVar("M", bound=BaseModel)

current_context: ContextVar[BaseModel] = ContextVar("stepwell_machine_context")
"""The Context of the step that runs here."""


def get_context() -> Any:
    """The run's Context, inside of a step (`self.context` is the same object).

    What a step changes in it, in place or by assignment, is committed with the step's outcome, and
    dropped when the step raises.

    Raises:
        ContextStateError: called outside of a step.
    """
    try:
        return current_context.get()
    except LookupError:
        raise ContextStateError(
            "get_context() works inside the steps of a state machine; from outside, ask "
            "engine.runs.get(id=...) for the run and read its `data`"
        ) from None


def plain(value: object, where: str) -> Any:
    """`value` as JSON values. Raises `UnserializableValue`, naming the part that is none."""
    if isinstance(value, Mapping):
        rows = cast("Mapping[object, object]", value)
        return {str(key): plain(item, f"{where}.{key}") for key, item in rows.items()}
    try:
        return json.loads(to_json(value, inf_nan_mode="strings"))
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        kind = type(value)
        raise UnserializableValue(where, f"{kind.__module__}.{kind.__qualname__}") from error


def load(kind: type[M], doc: Mapping[str, Any], what: str) -> M:
    """The Context that `doc` holds. Raises ValueError, saying `what` does not fit and where."""
    try:
        return kind.model_validate_json(to_json(doc, inf_nan_mode="strings"), by_name=True)
    except ValidationError as error:
        raise ValueError(f"{what}: {said(error)}") from error


def merged(kind: type[M], doc: Mapping[str, Any], payload: Mapping[str, Any], what: str) -> M:
    """The Context with `payload` merged into it: fields that it does not declare are dropped,
    unless it allows (or forbids) extra ones. Raises ValueError, as `load`."""
    names = declared(kind)
    fields = cast("dict[str, Any]", plain(payload, what))
    given = {names.get(key, key): value for key, value in fields.items()}
    return load(kind, {**doc, **given}, what)


def unfit(kind: type[BaseModel], payload: Mapping[str, Any]) -> list[str]:
    """What is wrong with these values, whatever the other fields of the Context are."""
    try:
        merged(kind, {}, payload, "a payload")
    except ValueError as error:
        if isinstance(cause := error.__cause__, ValidationError):
            wrong = [fault for fault in cause.errors() if fault["loc"]]
            return few(
                f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
                for fault in wrong
                if fault["type"] != "missing" or len(fault["loc"]) > 1
            )
        raise
    return []


def declared(kind: type[BaseModel]) -> dict[str, str]:
    """The field that a key of a payload means, by the names and the aliases of the fields."""
    found: dict[str, str] = {}
    for name, field in kind.model_fields.items():
        alias = field.validation_alias or field.alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
        found.update((one, name) for one in choices if isinstance(one, str))
    found.update((name, name) for name in kind.model_fields)
    return found


def undeclared(kind: type[BaseModel], payload: Mapping[str, Any]) -> list[str]:
    """The keys of `payload` that a Context of this kind drops."""
    if kind.model_config.get("extra") in ("allow", "forbid"):
        return []
    return sorted(set(payload) - set(declared(kind)))


def unexpected(kind: type[BaseModel], payload: Mapping[str, Any]) -> list[str]:
    """The keys that it drops although nobody said that it may: `extra="ignore"` says so."""
    return [] if "extra" in kind.model_config else undeclared(kind, payload)


def not_declared(keys: Iterable[str], kind: type[BaseModel], whose: str) -> list[str]:
    """A sentence for each of these keys, as far as a person reads them, for whoever sent it.

    Args:
        keys: what a model of this kind does not declare.
        kind: the model.
        whose: what it is called, such as "the Context of order".
    """
    known = list(kind.model_fields)
    return few(
        f"{key:.80}: {whose} declares no such field; {what_there_is(key, known)}" for key in keys
    )


def unkept(kind: type[BaseModel]) -> str | None:
    """A field whose values JSON would show as stars: pydantic's secrets."""
    own = kind.__pydantic_decorators__
    if own.model_serializers:
        return None
    shown = {name for made in own.field_serializers.values() for name in made.info.fields}
    for name, field in kind.model_fields.items():
        if name not in shown and "*" not in shown and _is_secret(field.annotation):
            return name
    return None


def _is_secret(annotation: object) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, SecretStr | SecretBytes | Secret):
        return True
    return any(_is_secret(part) for part in get_args(annotation))


def dump(context: BaseModel, what: str) -> dict[str, Any]:
    """The Context as JSON values, checked by reading them back. Raises ValueError or
    `UnserializableValue` when it holds what it does not allow, naming the field."""
    try:
        data = context.model_dump(mode="json", round_trip=True, warnings=False)
        text = to_json(data, inf_nan_mode="strings")
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        raise _unwritable(context) or ValueError(f"{what}: {error}") from error
    try:
        type(context).model_validate_json(text, by_name=True)
    except ValidationError as error:
        raise ValueError(f"{what}: {said(error)}") from error
    return data


def _unwritable(context: BaseModel) -> UnserializableValue | None:
    """Which field can't be written as JSON."""
    values = {**context.__dict__, **(context.__pydantic_extra__ or {})}
    for name, value in values.items():
        try:
            to_json(value, inf_nan_mode="strings")
        except (PydanticSerializationError, ValueError, RecursionError):
            kind = cast("type[object]", type(value))
            return UnserializableValue(f"context.{name}", f"{kind.__module__}.{kind.__qualname__}")
    return None


def said(error: ValidationError) -> str:
    """The faults that pydantic found, in one line."""
    faults: list[str] = []
    for fault in error.errors(include_url=False, include_input=True):
        where = ".".join(map(str, fault["loc"])) or "the whole"
        faults.append(f"{where}: {fault['msg']} (got {fault['input']!r:.60})")
    return "; ".join(faults)
