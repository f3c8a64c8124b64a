"""The page's server. All answers are JSON besides pictures (JPEG); errors are {"error": "a sentence"}.

    GET  /api/collection                      photos, features, limits of photos, and the predictor or null
    POST /api/photos                          body: the bytes of a photo file -> id, width, height (upright pixels)
    GET  /api/photos/ID.jpg                   the photo, upright and reduced
    POST /api/photos/ID/search                {"box": [x0, y0, x1, y1] or null} -> id, accepted, features, seconds, and
                                              matches: name, place, inliers, putative, log10_nfa, accepted, score
    GET  /api/searches/ID/RANK.jpg            query and match joined by lines; RANK counts from 0
    GET  /api/collection/PLACE.jpg            thumbnail of a photo of the index
    POST /api/photos/ID/localize              {"label": "class" or null} -> id, seconds, and as the next
    GET  /api/maps/ID/boxes?threshold=T       found, score, threshold, boxes [x0, y0, x1, y1, score], largest first
    GET  /api/maps/ID.jpg                     the map over the photo
    POST /api/photos/ID/explain               {"at": [x, y]} -> value, seconds, excitatory, inhibitory: name, label, xy,
                                              importance, similarity, value, share, thumbnail (data address or null)

Coordinates are pixels of the upright original photo. 404: forgotten, or a photo's file is gone. 413: too many bytes.
422: not a photo, or numbers that cannot be. 503: too many others are waiting. Photos stay in memory, the latest few of
them, and nothing is written.
"""

import asyncio
import concurrent.futures
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from delf_jax import drawing
from delf_jax.command import pictures
from delf_jax.command.report import plain
from delf_jax.command.web import asked
from delf_jax.command.web.finder import Answer, Finder
from delf_jax.command.web.guard import Guard
from delf_jax.command.web.kept import Kept
from delf_jax.command.web.locator import Locator, Looked
from delf_jax.errors import ImageError
from delf_jax.images import load_photo

MAX_BYTES = 32 << 20
MAX_PIXELS = 100_000_000

_PHOTOS, _PHOTO_BYTES = 32, 256 << 20
_ANSWERS = 32
_PREVIEW_SIDE = 1024
_WAITING = 8

_HERE = Path(__file__).parent
_PACKAGE = _HERE.parent.parent
_FILES = {
    "/": (_HERE / "page.html", "text/html"),
    "/page.css": (_HERE / "page.css", "text/css"),
    "/look.css": (_PACKAGE / "look.css", "text/css"),
    "/page.js": (_HERE / "page.js", "text/javascript"),
    "/stage.js": (_HERE / "stage.js", "text/javascript"),
    "/show.js": (_HERE / "show.js", "text/javascript"),
}

P = ParamSpec("P")
Result = TypeVar("Result")
Thing = TypeVar("Thing")

_log = logging.getLogger(__name__)


def create(finder: Finder, locator: Locator | None, *, host: str) -> Starlette:
    """The application, for any ASGI server that listens at ``host``."""
    api = _Api(finder, locator)
    routes = [
        *(Route(path, _file(*file)) for path, file in _FILES.items()),
        Route("/api/collection", api.collection),
        Route("/api/collection/{place:int}.jpg", api.thumbnail),
        Route("/api/photos", api.upload, methods=["POST"]),
        Route("/api/photos/{id}.jpg", api.photo),
        Route("/api/photos/{id}/search", api.search, methods=["POST"]),
        Route("/api/searches/{id}/{rank:int}.jpg", api.proof),
    ]
    if locator is not None:
        routes += [
            Route("/api/photos/{id}/localize", api.localize, methods=["POST"]),
            Route("/api/photos/{id}/explain", api.explain, methods=["POST"]),
            Route("/api/maps/{id}/boxes", api.boxes),
            Route("/api/maps/{id}.jpg", api.heat),
        ]
    handlers: Any = {HTTPException: _refused, ImageError: _unusable, Exception: _failed}
    return Starlette(routes=routes, middleware=[Middleware(Guard, host=host)], exception_handlers=handlers)


class _Photo(NamedTuple):
    """The bytes of a photo's file, and its (height, width) in upright pixels."""

    data: bytes
    size: tuple[int, int]


class _Worker:
    """One thread that computes, so that requests wait for each other instead of for memory."""

    def __init__(self) -> None:
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._waiting = 0

    async def run(self, work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        if self._waiting >= _WAITING:
            raise HTTPException(503, "the server is busy with other photos; try again in a moment")
        self._waiting += 1
        try:
            return await asyncio.wrap_future(self._thread.submit(work, *args, **kwargs))
        finally:
            self._waiting -= 1


class _Api:
    """The handlers, and what they keep between requests."""

    def __init__(self, finder: Finder, locator: Locator | None) -> None:
        self._finder, self._locator = finder, locator
        self._worker = _Worker()
        self._photos: Kept[_Photo] = Kept(_PHOTOS, total=_PHOTO_BYTES, size=lambda photo: len(photo.data))
        self._answers: Kept[Answer] = Kept(_ANSWERS)
        self._looks: Kept[Looked] = Kept(_ANSWERS)

    async def collection(self, request: Request) -> Response:
        index = self._finder.index
        return JSONResponse(
            {
                "photos": len(index),
                "features": index.feature_count,
                "threshold": index.threshold,
                "max_bytes": MAX_BYTES,
                "max_pixels": MAX_PIXELS,
                "smallest_box": asked.SMALLEST_BOX,
                "predictor": None if self._locator is None else self._locator.describe(),
            }
        )

    async def upload(self, request: Request) -> Response:
        data = await asked.body(request, MAX_BYTES)
        if not data:
            raise HTTPException(422, "the file is empty; choose another")
        height, width = await self._worker.run(_size, data)
        name = self._photos.add(_Photo(data, (height, width)))
        return JSONResponse({"id": name, "width": width, "height": height}, status_code=201)

    async def photo(self, request: Request) -> Response:
        return _jpeg(await self._worker.run(_reduced, _kept(self._photos, request).data))

    async def search(self, request: Request) -> Response:
        photo, start = _kept(self._photos, request), time.perf_counter()
        box = await asked.box(request, photo.size)
        answer = await self._worker.run(self._finder.search, photo.data, box)
        record = {"id": self._answers.add(answer), "seconds": time.perf_counter() - start}
        return JSONResponse(plain(record | self._finder.record(answer)))

    async def proof(self, request: Request) -> Response:
        answer, rank = _kept(self._answers, request), request.path_params["rank"]
        if rank >= len(answer.result.matches):
            raise HTTPException(404, "there is no match of this rank")
        return _jpeg(await self._worker.run(_or_gone, self._finder.proof, answer, rank))

    async def thumbnail(self, request: Request) -> Response:
        place = request.path_params["place"]
        if place >= len(self._finder.index):
            raise HTTPException(404, "there is no such photo")
        return _jpeg(await run_in_threadpool(_or_gone, self._finder.thumbnail, place))

    async def localize(self, request: Request) -> Response:
        assert self._locator is not None
        photo, start = _kept(self._photos, request), time.perf_counter()
        label = (await asked.fields(request)).get("label")
        known = self._locator.describe()
        if label is not None and label not in known["labels"]:
            raise HTTPException(422, "the predictor has no such class")
        looked = await self._worker.run(self._locator.look, photo.data, label)
        record = {"id": self._looks.add(looked), "seconds": time.perf_counter() - start}
        return JSONResponse(plain(record | await run_in_threadpool(self._locator.record, looked, known["threshold"])))

    async def boxes(self, request: Request) -> Response:
        assert self._locator is not None
        looked = _kept(self._looks, request)
        threshold = asked.threshold(request)
        return JSONResponse(plain(await run_in_threadpool(self._locator.record, looked, threshold)))

    async def heat(self, request: Request) -> Response:
        assert self._locator is not None
        return _jpeg(await self._worker.run(self._locator.heat, _kept(self._looks, request)))

    async def explain(self, request: Request) -> Response:
        assert self._locator is not None
        photo, start = _kept(self._photos, request), time.perf_counter()
        if not self._locator.describe()["explains"]:
            raise HTTPException(422, "the predictor was fitted without points; fit it again with --max-points above 0")
        place = await asked.place(request, photo.size)
        record = await self._worker.run(self._locator.explain, photo.data, place)
        return JSONResponse(plain(record | {"seconds": time.perf_counter() - start}))


def _file(path: Path, media_type: str) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        return FileResponse(path, media_type=media_type)

    return answer


def _kept(things: Kept[Thing], request: Request) -> Thing:
    thing = things.get(request.path_params["id"])
    if thing is None:
        raise HTTPException(404, "the server has forgotten this photo; drop it again")
    return thing


def _size(data: bytes) -> tuple[int, int]:
    return load_photo(data, max_side=_PREVIEW_SIDE, max_pixels=MAX_PIXELS).original_size


def _reduced(data: bytes) -> bytes:
    return drawing.to_jpeg(pictures.pixels_of(data))


def _or_gone(picture: Callable[P, bytes], *args: P.args, **kwargs: P.kwargs) -> bytes:
    try:
        return picture(*args, **kwargs)
    except ImageError:
        raise HTTPException(404, "the photo's file is no longer where it was when it was extracted") from None


def _jpeg(data: bytes) -> Response:
    return Response(data, media_type="image/jpeg")


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=error.headers)


def _unusable(request: Request, error: Exception) -> Response:
    assert isinstance(error, ImageError)  # its source may be a path; its reason is none
    return JSONResponse({"error": error.reason}, status_code=422)


def _failed(request: Request, error: Exception) -> Response:
    _log.error("request failed", exc_info=error, extra={"path": request.url.path})
    return JSONResponse({"error": "the server failed; its terminal tells why"}, status_code=500)
