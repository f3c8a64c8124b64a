"""The web server's application: the files of the page, the JSON interface, and how errors are answered."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from delf_cli.web.api import Api
from delf_cli.web.groups import Groups
from delf_cli.web.guard import Guard
from delf_cli.web.localizer import Localizer
from delf_cli.web.searcher import Searcher
from delf_jax.errors import ImageError

_HERE = Path(__file__).parent
FILES = {
    "/": (_HERE / "page.html", "text/html"),
    "/page.css": (_HERE / "page.css", "text/css"),
    "/look.css": (_HERE.parent / "look.css", "text/css"),
    "/page.js": (_HERE / "page.js", "text/javascript"),
    "/stage.js": (_HERE / "stage.js", "text/javascript"),
    "/show.js": (_HERE / "show.js", "text/javascript"),
    "/tabs.js": (_HERE / "tabs.js", "text/javascript"),
}

_log = logging.getLogger(__name__)


def create(searcher: Searcher, localizer: Localizer | None, groups: Groups | None, *, host: str) -> ASGIApp:
    """The application, for any ASGI server that listens at ``host``."""
    routes = [*(Route(path, _file(*file)) for path, file in FILES.items()), *Api(searcher, localizer, groups).routes()]
    handlers: Any = {HTTPException: _http_error, ImageError: _bad_photo, Exception: _internal_error}
    return Guard(Starlette(routes=routes, exception_handlers=handlers), host=host)


def _file(path: Path, media_type: str) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        return FileResponse(path, media_type=media_type)

    return answer


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)


def _bad_photo(request: Request, error: Exception) -> Response:
    assert isinstance(error, ImageError)
    # Only the reason: the source may be a path of the server.
    return JSONResponse({"error": error.reason}, status_code=422)


def _internal_error(request: Request, error: Exception) -> Response:
    _log.error("request failed", exc_info=error, extra={"path": request.url.path})
    return JSONResponse({"error": "the server failed; its terminal shows the reason"}, status_code=500)
