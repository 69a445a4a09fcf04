"""Query parameters that a route does not have are refused: a filter that is misspelt is no filter,
and what was meant for some runs would be done to all."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from stepwell.server.problems import Problem


class KnownOnly(APIRoute):
    """A route that takes the query parameters that it declares, and no other."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        handler = super().get_route_handler()
        names = [field.alias for field in self.dependant.query_params]

        async def answer(request: Request) -> Response:
            for name in request.query_params:
                if name not in names:
                    there_is = f"there is {', '.join(names)}" if names else "there are none"
                    detail = f"{name!r:.60} is no parameter of this route; {there_is}"
                    raise Problem(422, "unknown_parameter", detail, hint="GET /docs shows them.")
            return await handler(request)

        return answer
