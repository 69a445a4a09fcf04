"""The public door to the state of a run."""

from stepwell.authoring.events.state_store import (
    KNOWN_UNSERIALIZABLE_KEYS,
    MAX_DEPTH,
    DictState,
    InMemorySerializedState,
    InMemoryStateStore,
    StateCheckpoint,
    StateEdit,
    StateStore,
    UnserializableKeyWarning,
    apply_state_patch,
    deserialize_state_from_dict,
    infer_state_type,
    parse_in_memory_state,
)

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
