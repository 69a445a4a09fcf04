"""What a person copies from a run's page, to move it: a command for those who have stepwell, and a
request for those who have a shell.

The page itself changes nothing. What came from outside is quoted for the shell here, and for the
page where all text is.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from stepwell.runtime.answering import command, is_for_people, request
from stepwell.server.paths import part_of
from stepwell.values import RunStatus

MOST = 5
"""Waits whose ends are spelt out."""


def ways_on(run: Mapping[str, Any], service: str, token: bool) -> Iterator[str]:
    """The ways to move a run that a person has to move, each a command and a request.

    Args:
        run: the run, as the service shows it.
        service: where the service is, with the path that it is mounted under.
        token: whether it asks for one; both take it from the variable STEPWELL_TOKEN.
    """
    run_id = run["workflow_id"]
    if run["status"] == RunStatus.PARKED.value:
        yield _way(service, token, f"stepwell resume {shlex.quote(run_id)}", run_id, "resume", None)
    for wait in [wait for wait in run["waits"] if is_for_people(wait)][:MOST]:
        verb, body = request(wait)
        path = verb if verb == "answer" else f"{verb}/{part_of(wait['event'])}"
        yield _way(service, token, command(run_id, wait), run_id, path, body)


def _way(
    service: str,
    token: bool,
    words: str,
    run_id: str,
    path: str,
    body: Mapping[str, Any] | None,
) -> str:
    lines = [f"curl -X POST {shlex.quote(f'{service}/api/workflow/{part_of(run_id)}/{path}')}"]
    if token:
        lines.append('-H "Authorization: Bearer $STEPWELL_TOKEN"')
    if body is not None:
        said = shlex.quote(json.dumps(body, ensure_ascii=False))
        lines.append(f"-H 'Content-Type: application/json' -d {said}")
    curl = " \\\n     ".join(lines)
    return f"{words} --server {shlex.quote(service)}\n\n{curl}"
