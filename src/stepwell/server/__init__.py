"""The REST service: one set of routes for workflows of every style.

    import stepwell

    app = stepwell.asgi(engine)              # by itself: uvicorn module:app
    site.mount("/workflows", stepwell.asgi(engine))

`stepwell serve` is the same app with an engine, settings and safe defaults around it.
"""

from stepwell.server.app import asgi

__all__ = ["asgi"]
