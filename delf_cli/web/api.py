"""The JSON interface of the page. Errors are {"error": "a sentence"}, pictures are JPEG, everything else is JSON.

    GET  /api/collection                      number of photos and features, upload limits, number of groups, and the
                                              predictor or null
    GET  /api/groups                          alone (photos in no group), and groups: label, members (name, place,
                                              copy_of, other_name), pairs (a, b, inliers, log10_nfa, limit, copy)
    GET  /api/groups/GROUP/PAIR.jpg           two photos of a group side by side, matches joined; both start at 0
    POST /api/photos                          body: the bytes of a photo file -> id, width, height (upright pixels)
    GET  /api/photos/ID.jpg                   the photo, upright and reduced
    POST /api/photos/ID/search                {"box": [x0, y0, x1, y1] or null} -> id, accepted, threshold, guarantee,
                                              features, seconds, and matches: name, place, inliers, putative,
                                              log10_nfa, accepted, confidence, evidence, score, and overlay (matches
                                              on an overlay of both photos, which do not count)
    GET  /api/searches/ID/RANK.jpg            query and match side by side, matches joined by lines; RANK starts at 0
    GET  /api/collection/PLACE.jpg            thumbnail of a photo of the index
    POST /api/photos/ID/localize              {"label": "class" or null} -> id, seconds, and the fields of the next line
    GET  /api/maps/ID/boxes?threshold=T       found, score, threshold, boxes [x0, y0, x1, y1, score], best first
    GET  /api/maps/ID.jpg                     the map over the photo
    POST /api/photos/ID/explain               {"at": [x, y]} -> value, seconds, excitatory, inhibitory: name, label, xy,
                                              importance, similarity, value, share, thumbnail (data address or null)

Coordinates are pixels of the upright original photo. Status 404: the photo is no longer in memory, or its file is gone.
413: too many bytes. 422: the file is not a photo, or a number is impossible. 503: too many requests are waiting. The
server keeps the latest photos in memory and writes nothing.
"""

import time
from collections.abc import Callable
from typing import NamedTuple, ParamSpec, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from delf_cli import result_pictures
from delf_cli.report import jsonable
from delf_cli.web import request_parsing
from delf_cli.web.groups import Groups
from delf_cli.web.localizer import LocalizedPhoto, Localizer
from delf_cli.web.lru_cache import LruCache
from delf_cli.web.searcher import SearchAnswer, Searcher
from delf_cli.web.worker import Worker
from delf_jax import drawing
from delf_jax.errors import ImageError
from delf_jax.photos.load import load_photo

MAX_BYTES = 32 << 20
MAX_PIXELS = 100_000_000

_PHOTOS, _PHOTO_BYTES = 32, 256 << 20
_ANSWERS = 32
_PREVIEW_SIDE = 1024

P = ParamSpec("P")
Entry = TypeVar("Entry")


class _Photo(NamedTuple):
    """The bytes of an uploaded photo file, and its (height, width) in upright pixels."""

    data: bytes
    size: tuple[int, int]


class Api:
    """The request handlers, and what they keep in memory between requests."""

    def __init__(self, searcher: Searcher, localizer: Localizer | None, groups: Groups | None) -> None:
        self._searcher, self._localizer, self._groups = searcher, localizer, groups
        self._worker = Worker()
        self._photos: LruCache[_Photo] = LruCache(_PHOTOS, total=_PHOTO_BYTES, size=lambda photo: len(photo.data))
        # Answers hold the id of their photo, not the photo, so that they do not keep forgotten photos in memory.
        self._answers: LruCache[tuple[str, SearchAnswer]] = LruCache(_ANSWERS)
        self._localized: LruCache[tuple[str, LocalizedPhoto]] = LruCache(_ANSWERS)

    def routes(self) -> list[Route]:
        """The addresses that are answered; those of the predictor and of the groups only if there are any."""
        routes = [
            Route("/api/collection", self._collection),
            Route("/api/collection/{place:int}.jpg", self._thumbnail),
            Route("/api/photos", self._upload, methods=["POST"]),
            Route("/api/photos/{id}.jpg", self._photo),
            Route("/api/photos/{id}/search", self._search, methods=["POST"]),
            Route("/api/searches/{id}/{rank:int}.jpg", self._proof),
        ]
        if self._localizer is not None:
            routes += [
                Route("/api/photos/{id}/localize", self._localize, methods=["POST"]),
                Route("/api/photos/{id}/explain", self._explain, methods=["POST"]),
                Route("/api/maps/{id}/boxes", self._boxes),
                Route("/api/maps/{id}.jpg", self._heat_map),
            ]
        if self._groups is not None:
            routes += [
                Route("/api/groups", self._all_groups),
                Route("/api/groups/{group:int}/{pair:int}.jpg", self._proof_of_pair),
            ]
        return routes

    async def _collection(self, request: Request) -> Response:
        index = self._searcher.index
        return JSONResponse(
            {
                "photos": len(index),
                "features": index.feature_count,
                "max_bytes": MAX_BYTES,
                "max_pixels": MAX_PIXELS,
                "smallest_box": request_parsing.SMALLEST_BOX,
                "groups": 0 if self._groups is None else len(self._groups.record()["groups"]),
                "predictor": None if self._localizer is None else self._localizer.describe(),
            }
        )

    async def _upload(self, request: Request) -> Response:
        data = await request_parsing.body(request, MAX_BYTES)
        if not data:
            raise HTTPException(422, "the file is empty; choose another")
        height, width = await self._worker.run(request, _size, data)
        name = self._photos.add(_Photo(data, (height, width)))
        return JSONResponse({"id": name, "width": width, "height": height}, status_code=201)

    async def _photo(self, request: Request) -> Response:
        return _jpeg(await self._worker.run(request, _reduced, _get(self._photos, _id(request)).data))

    async def _search(self, request: Request) -> Response:
        photo, start = _get(self._photos, _id(request)), time.perf_counter()
        box = await request_parsing.box(request, photo.size)
        answer = await self._worker.run(request, self._searcher.search, photo.data, box)
        record = {"id": self._answers.add((_id(request), answer)), "seconds": time.perf_counter() - start}
        return JSONResponse(jsonable(record | self._searcher.record(answer)))

    async def _proof(self, request: Request) -> Response:
        (name, answer), rank = _get(self._answers, _id(request)), request.path_params["rank"]
        if rank >= len(answer.result.matches):
            raise HTTPException(404, "there is no match of this rank")
        photo = _get(self._photos, name).data
        return _jpeg(await self._worker.run(request, _or_404, self._searcher.proof, photo, answer, rank))

    async def _thumbnail(self, request: Request) -> Response:
        place = request.path_params["place"]
        if place >= len(self._searcher.index):
            raise HTTPException(404, "the index has no such photo")
        return _jpeg(await run_in_threadpool(_or_404, self._searcher.thumbnail, place))

    async def _all_groups(self, request: Request) -> Response:
        assert self._groups is not None
        return JSONResponse(self._groups.record())

    async def _proof_of_pair(self, request: Request) -> Response:
        assert self._groups is not None
        group, pair = request.path_params["group"], request.path_params["pair"]
        try:
            return _jpeg(await self._worker.run(request, _or_404, self._groups.proof, group, pair))
        except IndexError:
            raise HTTPException(404, "there is no such pair") from None

    async def _localize(self, request: Request) -> Response:
        assert self._localizer is not None
        photo, start = _get(self._photos, _id(request)), time.perf_counter()
        label = (await request_parsing.fields(request)).get("label")
        known = self._localizer.describe()
        if label is not None and label not in known["labels"]:
            raise HTTPException(422, "the predictor has no such class")
        localized = await self._worker.run(request, self._localizer.localize, photo.data, label)
        record = {"id": self._localized.add((_id(request), localized)), "seconds": time.perf_counter() - start}
        found = await run_in_threadpool(self._localizer.record, localized, known["threshold"])
        return JSONResponse(jsonable(record | found))

    async def _boxes(self, request: Request) -> Response:
        assert self._localizer is not None
        _, localized = _get(self._localized, _id(request))
        threshold = request_parsing.threshold(request)
        return JSONResponse(jsonable(await run_in_threadpool(self._localizer.record, localized, threshold)))

    async def _heat_map(self, request: Request) -> Response:
        assert self._localizer is not None
        name, localized = _get(self._localized, _id(request))
        photo = _get(self._photos, name).data
        return _jpeg(await self._worker.run(request, self._localizer.heat_map, photo, localized))

    async def _explain(self, request: Request) -> Response:
        assert self._localizer is not None
        photo, start = _get(self._photos, _id(request)), time.perf_counter()
        if not self._localizer.describe()["explains"]:
            raise HTTPException(422, "the predictor holds no training points; fit it again without --no-points")
        place = await request_parsing.place(request, photo.size)
        record = await self._worker.run(request, self._localizer.explain, photo.data, place)
        return JSONResponse(jsonable(record | {"seconds": time.perf_counter() - start}))


def _id(request: Request) -> str:
    name: str = request.path_params["id"]
    return name


def _get(cache: LruCache[Entry], name: str) -> Entry:
    entry = cache.get(name)
    if entry is None:
        raise HTTPException(404, "the server no longer keeps this photo; drop it again")
    return entry


def _size(data: bytes) -> tuple[int, int]:
    return load_photo(data, max_side=_PREVIEW_SIDE, max_pixels=MAX_PIXELS).original_size


def _reduced(data: bytes) -> bytes:
    return drawing.to_jpeg(result_pictures.load_pixels(data))


def _or_404(picture: Callable[P, bytes], *args: P.args, **kwargs: P.kwargs) -> bytes:
    try:
        return picture(*args, **kwargs)
    except ImageError:
        raise HTTPException(404, "the photo's file has been moved or deleted since it was extracted") from None


def _jpeg(data: bytes) -> Response:
    return Response(data, media_type="image/jpeg")
