"""The public door to the state of a run."""

from stepwell.authoring.events.state_data import (
    KNOWN_UNSERIALIZABLE_KEYS,
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
from stepwell.authoring.events.state_path import MAX_DEPTH
from stepwell.authoring.events.state_store import InMemoryStateStore

__all__ = [
    "KNOWN_UNSERIALIZABLE_KEYS",
    "MAX_DEPTH",
    "DictState",
    "InMemorySerializedState",
    "InMemoryStateStore",
    "StateCheckpoint",
    "StateEdit",
    "StateStore",
    "UnserializableKeyWarning",
    "apply_state_patch",
    "deserialize_state_from_dict",
    "infer_state_type",
    "parse_in_memory_state",
]
