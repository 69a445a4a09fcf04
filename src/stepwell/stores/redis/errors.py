"""What Redis's errors mean to whoever runs the store.

Redis says the kind of an error with the first word of its text; redis-py knows some of these words
and takes them off. An operator needs to know which server, what happened and what to do. Nothing
raw leaves the store: `translate` has an answer for every error that a connection may raise.
"""

from __future__ import annotations

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from stepwell.errors import (
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreUnavailable,
)

LOST = "STEPWELLLOST"
LATE = "STEPWELLLATE"

_BY_CLASS: tuple[tuple[type[Exception], type[StoreError]], ...] = (
    (OutOfMemoryError, StoreFull),
    (ReadOnlyError, StoreReadOnly),
    (NoPermissionError, StoreReadOnly),
    (BusyLoadingError, StoreUnavailable),
    (ClusterDownError, StoreUnavailable),
    (AskError, StoreUnavailable),
    (TryAgainError, StoreUnavailable),
    (AuthenticationError, StoreUnavailable),
    (RedisConnectionError, StoreUnavailable),
    (RedisTimeoutError, StoreUnavailable),
    (NoScriptError, StoreUnavailable),
    (OSError, StoreUnavailable),
)
_BY_WORD: dict[str, type[StoreError]] = {
    "OOM": StoreFull,
    "READONLY": StoreReadOnly,
    "NOPERM": StoreReadOnly,
    "LOADING": StoreUnavailable,
    "MASTERDOWN": StoreUnavailable,
    "CLUSTERDOWN": StoreUnavailable,
    "TRYAGAIN": StoreUnavailable,
    "MOVED": StoreUnavailable,
    "ASK": StoreUnavailable,
    "NOREPLICAS": StoreUnavailable,
    "MISCONF": StoreUnavailable,
    "NOAUTH": StoreUnavailable,
    "WRONGPASS": StoreUnavailable,
    "NOSCRIPT": StoreUnavailable,
    LATE: StoreUnavailable,
    "BUSY": StoreLocked,
    "WRONGTYPE": StoreCorrupt,
}
_WORDS: dict[type[StoreError], str] = {
    StoreLocked: "{url} is busy with a script",
    StoreFull: "the server of {url} has no room left",
    StoreReadOnly: "{url} cannot be written",
    StoreCorrupt: "what {url} holds is not what was written",
    StoreUnavailable: "{url} cannot be reached or used",
    StoreError: "{url} refused what was asked",
}
_HINTS: dict[type[StoreError], str] = {
    StoreFull: "Raise maxmemory or free disk space, or shorten the retention of finished runs.",
    StoreReadOnly: "Check that the server is no replica, and what the user may do (ACL LIST).",
    StoreCorrupt: "Give the store a prefix of its own (?prefix=name), or restore from a backup.",
    StoreError: "This is not about the server's health; please report it with the text above.",
}
_ELSEWHERE = "Name the node of the cluster that holds the slot, or a proxy before the cluster."
_HINTS_BY_CLASS: tuple[tuple[type[Exception], str], ...] = (
    (AskError, _ELSEWHERE),
    (
        ClusterDownError,
        "The slot of the store's keys is served by no node; see CLUSTER INFO.",
    ),
)
_HINTS_BY_WORD: dict[str, str] = {
    "NOAUTH": "Give a password: redis://user:password@host.",
    "WRONGPASS": "Check the user and the password.",
    "MOVED": _ELSEWHERE,
    "BUSY": "See SLOWLOG GET; SCRIPT KILL ends a script that has written nothing.",
}
_HINTS_BY_TEXT = {
    "unknown command": "The server must allow EVALSHA, SCRIPT LOAD, PUBLISH and SUBSCRIBE. If it is"
    " a Sentinel: name the primary that it watches; Sentinels are not asked.",
    "CERTIFICATE_VERIFY_FAILED": "Name the authority that signed the server's certificate"
    " (?ssl_ca_certs=ca.pem), and the host as the certificate does.",
    "WRONG_VERSION_NUMBER": "The server does not speak TLS there: redis:// instead of rediss://, or"
    " another port.",
}
# What may be over a moment later, with nothing kept of what was refused.
_PASSING = (StoreUnavailable, StoreReadOnly, StoreLocked)


def word_of(error: BaseException) -> str:
    """The first word of what the server said: the kind of the error, unless redis-py took it."""
    said = str(error)
    return said.partition(" ")[0] if isinstance(error, ResponseError) else ""


def translate(error: BaseException, url: str) -> StoreError:
    """The store error that says what `error` means for the store at `url`."""
    word = word_of(error)
    kind = _BY_WORD.get(word)
    if kind is None:
        kind = next((to for cls, to in _BY_CLASS if isinstance(error, cls)), StoreError)
    if "No space left" in str(error):
        kind = StoreFull
    text = " ".join(str(error).split()) or type(error).__name__
    hint = next((hint for cls, hint in _HINTS_BY_CLASS if isinstance(error, cls)), None)
    hint = hint or next((hint for part, hint in _HINTS_BY_TEXT.items() if part in text), None)
    hint = hint or _HINTS_BY_WORD.get(word) or _HINTS.get(kind)
    return kind(f"{_WORDS[kind].format(url=url)}: {text}", hint=hint)


def is_passing(error: StoreError) -> bool:
    """Whether the same call may well succeed later."""
    return isinstance(error, _PASSING)


BROKEN = (RedisError, OSError, TimeoutError)
"""What a connection raises when nobody knows what became of what was sent."""
