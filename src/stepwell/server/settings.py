"""The settings of the service, and where each value came from.

A flag beats the environment, which beats the file `.env`, which beats the default. The five names
of the environment without a prefix are those that users of the older service know.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from stepwell.errors import InvalidArgument

DEFAULT_STORE = "sqlite:///stepwell.db"
ENV_FILE = ".env"
_PLAIN = {
    "redis_host": "REDIS_HOST",
    "redis_port": "REDIS_PORT",
    "redis_password": "REDIS_PASSWORD",
    "debug": "DEBUG",
    "max_concurrent_workflows": "MAX_CONCURRENT_WORKFLOWS",
}


def variable_of(field: str) -> str:
    """The environment variable of a setting."""
    return _PLAIN.get(field, f"STEPWELL_{field.upper()}")


class Settings(BaseSettings):
    """What `stepwell serve` can be told. The names in the environment are in `variable_of`."""

    model_config = SettingsConfigDict(
        env_file=ENV_FILE,
        extra="ignore",
        populate_by_name=True,
        alias_generator=variable_of,
        str_strip_whitespace=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    host: str = Field("127.0.0.1", min_length=1, description="The address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="The port; 0 takes a free one.")
    store: str | None = Field(None, description=f"Where runs are kept; {DEFAULT_STORE}.")
    redis_host: str | None = Field(None, description="Keep runs in this Redis, without STORE.")
    redis_port: int = Field(6379, ge=1, le=65535, description="Its port.")
    redis_password: SecretStr | None = Field(None, description="Its password.")
    require_store: bool = Field(
        False, description="Do not start when Redis can't be reached, instead of using memory."
    )
    max_concurrent_workflows: int = Field(
        10_000, ge=1, le=1_000_000, description="Runs at work at once; others queue by priority."
    )
    max_queue: int = Field(10_000, ge=1, description="Queued runs before new ones are refused.")
    token: SecretStr | None = Field(None, description="What callers have to send.")
    insecure: bool = Field(False, description="Listen on other addresses without a token.")
    allow_host: str = Field("", description="Further host names that it answers to, with commas.")
    tasks: str = Field("", description="Modules with tasks for documents, with commas.")
    app: str = Field("", description="Modules with workflows to serve, with commas.")
    http_hosts: str = Field(
        "", description="Hosts that the task http_request may ask, with commas; none: no such task."
    )
    http_schemes: str = Field("https", description="How it may ask them: https, http.")
    lease: float = Field(15.0, gt=0, description="Seconds before others take over its runs.")
    drain_seconds: float = Field(30.0, ge=0, description="Seconds steps may go on when it stops.")
    heartbeat: float = Field(15.0, gt=0, description="Seconds between signs of life of streams.")
    patience: float = Field(
        10.0, gt=0, description="Seconds that callers, readers and the store have to do their part."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="How the log is written: for people, or a JSON object a line."
    )
    debug: bool = Field(False, description="Log more, and every request.")

    @field_validator("token")
    @classmethod
    def _says_something(cls, token: SecretStr | None) -> SecretStr | None:
        # A variable that is not set, between quotes on the command line, must not open the service.
        if token is not None and not token.get_secret_value():
            raise PydanticCustomError("empty", "it is empty; for no token leave it out")
        return token

    @property
    def url(self) -> str:
        """The store's URL, with its password."""
        if self.store is not None:
            return self.store
        if self.redis_host is None:
            return DEFAULT_STORE
        password = self.redis_password
        secret = "" if password is None else f":{quote(password.get_secret_value(), safe='')}@"
        host = f"[{self.redis_host}]" if ":" in self.redis_host else self.redis_host
        return f"redis://{secret}{host}:{self.redis_port}/0"

    @property
    def wants_redis(self) -> bool:
        """Whether runs are to be kept in Redis."""
        return self.url.startswith(("redis://", "rediss://"))


def words_of(value: str) -> list[str]:
    """The parts of a value with commas."""
    return [word.strip() for word in value.split(",") if word.strip()]


@dataclass(frozen=True, slots=True)
class Source:
    """A setting as it is in force: shown without secrets, and where it came from."""

    name: str
    variable: str
    value: str
    source: str
    purpose: str


def load(flags: Mapping[str, Any]) -> Settings:
    """The settings that are in force.

    Args:
        flags: what was given on the command line, by setting; None for what was not.

    Raises:
        InvalidArgument: a value makes no sense; names where it came from, and never shows it.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        names = [str(e["loc"][0]) for e in error.errors()]
        faults = "; ".join(f"{n}: {e['msg']}" for n, e in zip(names, error.errors(), strict=True))
        raise InvalidArgument(
            f"the settings make no sense: {faults}",
            hint="Put it right or leave it out. Flags beat the environment, which beats .env.",
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{ENV_FILE} is not UTF-8 text: {error.reason}") from error


def strangers() -> list[str]:
    """A line for every variable of the environment, and of the file, that begins as ours do and
    means nothing: a name that was misspelt does nothing."""
    known = {variable_of(name) for name in Settings.model_fields} | {"STEPWELL_SERVER"}
    given = {name.upper() for name in os.environ}
    if Path(ENV_FILE).is_file():
        given |= {name.upper() for name in dotenv_values(ENV_FILE)}
    lines: list[str] = []
    for name in sorted(given - known):
        if name.startswith("STEPWELL_"):
            close = difflib.get_close_matches(name, known, 1, 0.8)
            more = f"; did you mean {close[0]}?" if close else ""
            lines.append(f"the variable {name} means nothing to stepwell{more}")
    return lines


def sources(settings: Settings, flags: Mapping[str, Any]) -> list[Source]:
    """Every setting with its value, secrets masked, and where it came from."""
    environment = {name.upper() for name, value in os.environ.items() if value}
    in_file: set[str] = set()
    if Path(ENV_FILE).is_file():
        in_file = {name.upper() for name, value in dotenv_values(ENV_FILE).items() if value}
    rows: list[Source] = []
    for name, field in Settings.model_fields.items():
        variable = variable_of(name)
        if flags.get(name) is not None:
            source = f"flag --{name.replace('_', '-')}"
        elif variable in environment:
            source = f"environment {variable}"
        elif variable in in_file:
            source = f"{ENV_FILE} {variable}"
        else:
            source = "default"
        value = getattr(settings, name)
        rows.append(Source(name, variable, _shown(name, value), source, field.description or ""))
    return rows


def _shown(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return "********"
    return without_password(str(value)) if name == "store" else str(value)


def without_password(url: str) -> str:
    """A URL without the password in it."""
    scheme, found, rest = url.partition("://")
    who, at, place = rest.rpartition("@")
    if not found or not at:
        return url
    user, colon, _ = who.partition(":")
    return f"{scheme}://{user}{':********' if colon else ''}@{place}"
