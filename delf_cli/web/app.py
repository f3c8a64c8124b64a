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
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from delf_cli import pictures
from delf_cli.report import plain
from delf_cli.web import request_parsing
from delf_cli.web.finder import Answer, Finder
from delf_cli.web.guard import Guard
from delf_cli.web.locator import Locator, Looked
from delf_cli.web.lru_cache import Kept
from delf_jax import drawing
from delf_jax.errors import ImageError
from delf_jax.photos.load import load_photo

MAX_BYTES = 32 << 20
MAX_PIXELS = 100_000_000

_PHOTOS, _PHOTO_BYTES = 32, 256 << 20
_ANSWERS = 32
_PREVIEW_SIDE = 1024
_WAITING = 8

_HERE = Path(__file__).parent
_PACKAGE = _HERE.parent
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


def create(finder: Finder, locator: Locator | None, *, host: str) -> ASGIApp:
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
    return Guard(Starlette(routes=routes, exception_handlers=handlers), host=host)


class _Photo(NamedTuple):
    """The bytes of a photo's file, and its (height, width) in upright pixels."""

    data: bytes
    size: tuple[int, int]


class _Worker:
    """One thread that computes, so that requests wait for each other instead of for memory."""

    def __init__(self) -> None:
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def run(self, request: Request, work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        """The result of the work, once it is its turn; work for a page that has gone meanwhile is left undone."""
        if self._waiting >= _WAITING:
            raise HTTPException(503, "the server is busy with other photos; try again in a moment")
        self._waiting += 1
        try:
            async with self._turn:
                if await request.is_disconnected():
                    raise HTTPException(499, "nobody waits for this any more")
                return await asyncio.wrap_future(self._thread.submit(work, *args, **kwargs))
        finally:
            self._waiting -= 1


class _Api:
    """The handlers, and what they keep between requests."""

    def __init__(self, finder: Finder, locator: Locator | None) -> None:
        self._finder, self._locator = finder, locator
        self._worker = _Worker()
        self._photos: Kept[_Photo] = Kept(_PHOTOS, total=_PHOTO_BYTES, size=lambda photo: len(photo.data))
        # With the name of their photo, so that forgotten photos are not kept alive by what was found in them.
        self._answers: Kept[tuple[str, Answer]] = Kept(_ANSWERS)
        self._looks: Kept[tuple[str, Looked]] = Kept(_ANSWERS)

    async def collection(self, request: Request) -> Response:
        index = self._finder.index
        return JSONResponse(
            {
                "photos": len(index),
                "features": index.feature_count,
                "threshold": index.threshold,
                "max_bytes": MAX_BYTES,
                "max_pixels": MAX_PIXELS,
                "smallest_box": request_parsing.SMALLEST_BOX,
                "predictor": None if self._locator is None else self._locator.describe(),
            }
        )

    async def upload(self, request: Request) -> Response:
        data = await request_parsing.body(request, MAX_BYTES)
        if not data:
            raise HTTPException(422, "the file is empty; choose another")
        height, width = await self._worker.run(request, _size, data)
        name = self._photos.add(_Photo(data, (height, width)))
        return JSONResponse({"id": name, "width": width, "height": height}, status_code=201)

    async def photo(self, request: Request) -> Response:
        return _jpeg(await self._worker.run(request, _reduced, _kept(self._photos, _id(request)).data))

    async def search(self, request: Request) -> Response:
        photo, start = _kept(self._photos, _id(request)), time.perf_counter()
        box = await request_parsing.box(request, photo.size)
        answer = await self._worker.run(request, self._finder.search, photo.data, box)
        record = {"id": self._answers.add((_id(request), answer)), "seconds": time.perf_counter() - start}
        return JSONResponse(plain(record | self._finder.record(answer)))

    async def proof(self, request: Request) -> Response:
        (name, answer), rank = _kept(self._answers, _id(request)), request.path_params["rank"]
        if rank >= len(answer.result.matches):
            raise HTTPException(404, "there is no match of this rank")
        return _jpeg(
            await self._worker.run(request, _or_gone, self._finder.proof, _kept(self._photos, name).data, answer, rank)
        )

    async def thumbnail(self, request: Request) -> Response:
        place = request.path_params["place"]
        if place >= len(self._finder.index):
            raise HTTPException(404, "there is no such photo")
        return _jpeg(await run_in_threadpool(_or_gone, self._finder.thumbnail, place))

    async def localize(self, request: Request) -> Response:
        assert self._locator is not None
        photo, start = _kept(self._photos, _id(request)), time.perf_counter()
        label = (await request_parsing.fields(request)).get("label")
        known = self._locator.describe()
        if label is not None and label not in known["labels"]:
            raise HTTPException(422, "the predictor has no such class")
        looked = await self._worker.run(request, self._locator.look, photo.data, label)
        record = {"id": self._looks.add((_id(request), looked)), "seconds": time.perf_counter() - start}
        return JSONResponse(plain(record | await run_in_threadpool(self._locator.record, looked, known["threshold"])))

    async def boxes(self, request: Request) -> Response:
        assert self._locator is not None
        _, looked = _kept(self._looks, _id(request))
        threshold = request_parsing.threshold(request)
        return JSONResponse(plain(await run_in_threadpool(self._locator.record, looked, threshold)))

    async def heat(self, request: Request) -> Response:
        assert self._locator is not None
        name, looked = _kept(self._looks, _id(request))
        return _jpeg(await self._worker.run(request, self._locator.heat, _kept(self._photos, name).data, looked))

    async def explain(self, request: Request) -> Response:
        assert self._locator is not None
        photo, start = _kept(self._photos, _id(request)), time.perf_counter()
        if not self._locator.describe()["explains"]:
            raise HTTPException(422, "the predictor was fitted without points; fit it again with --max-points above 0")
        place = await request_parsing.place(request, photo.size)
        record = await self._worker.run(request, self._locator.explain, photo.data, place)
        return JSONResponse(plain(record | {"seconds": time.perf_counter() - start}))


def _file(path: Path, media_type: str) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        return FileResponse(path, media_type=media_type)

    return answer


def _id(request: Request) -> str:
    name: str = request.path_params["id"]
    return name


def _kept(things: Kept[Thing], name: str) -> Thing:
    thing = things.get(name)
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
