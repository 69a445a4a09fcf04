"""What is answered when something can't be done: RFC 9457 problem details, always.

An error says whose fault it is (`stepwell.errors`); here that becomes a status. What a caller did
wrong is never a 5xx; a store in trouble is a 503 that says when to come again; what is none of both
is a fault of this library, logged with its trace, which never leaves the process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from stepwell.errors import (
    DocumentError,
    InvalidArgument,
    LeaseLost,
    NoPendingQuestion,
    RunAlreadyExists,
    RunNotFound,
    StepwellError,
    StoreError,
    UnserializableValue,
    ValueTooLarge,
    WorkflowNotRegistered,
    WorkflowRuntimeError,
    WorkflowStepDoesNotExistError,
)

RETRY_AFTER = 5
"""Seconds after which a caller may come again."""

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """An answer that says what is wrong.

    Args:
        status: the HTTP status.
        code: a stable word for programs.
        detail: what happened, in a sentence.
        hint: what to do.
        errors: the faults one by one, each with its path.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        hint: str = "",
        errors: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.hint = hint
        self.errors = tuple(errors)
        self.headers = dict(headers or {})

    def shown(self) -> dict[str, Any]:
        """The body of the answer."""
        shown: dict[str, Any] = {
            "type": f"urn:stepwell:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.hint:
            shown["hint"] = self.hint
        if self.errors:
            shown["errors"] = list(self.errors)
        return shown

    def response(self) -> Response:
        """The answer."""
        text = json.dumps(self.shown(), ensure_ascii=False).encode(errors="replace")
        return Response(text, self.status, self.headers, MEDIA_TYPE)


def problem_of(error: Exception) -> Problem | None:
    """What an error of the engine means to the caller; None: a fault of this library."""
    if isinstance(error, Problem):
        return error
    code = str(getattr(error, "code", "error"))
    message = error.message if isinstance(error, StepwellError) else str(error)
    hint = str(getattr(error, "hint", ""))
    match error:
        case DocumentError():
            return Problem(422, code, error.problems[0], errors=error.problems)
        case WorkflowNotRegistered():
            hint = "GET /api/definitions lists them; `stepwell serve --app MODULE` serves more."
            return Problem(404, code, message, hint=hint)
        case RunNotFound():
            return Problem(404, code, message, hint=hint)
        case RunAlreadyExists() | NoPendingQuestion():
            return Problem(409, code, message, hint=hint)
        case InvalidArgument() | UnserializableValue():
            return Problem(422, code, message, hint=hint)
        case ValueTooLarge():
            return Problem(413, code, message, hint=hint)
        case StoreError() | LeaseLost():
            return unavailable(code, message, hint)
        case WorkflowStepDoesNotExistError() | WorkflowRuntimeError():
            return Problem(409, code, message, hint=hint)
        case _:
            return None


def unavailable(code: str, detail: str, hint: str = "") -> Problem:
    """The store, or the service, can't do it now; nothing is lost."""
    return Problem(503, code, detail, hint=hint, headers={"Retry-After": str(RETRY_AFTER)})
