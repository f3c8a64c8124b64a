"""Reads and checks what a request asks for: bodies of limited size, boxes and places inside their photo."""

import json
import math
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from delf_cli.cropped_features import Box

# In pixels of the photo. A smaller part holds too few features for a search.
SMALLEST_BOX = 32
_MAX_JSON = 4096


async def body(request: Request, limit: int) -> bytes:
    """The body of the request; status 413 as soon as it is longer than ``limit`` bytes."""
    too_large = HTTPException(413, f"the file is larger than {limit >> 20} MiB; save the photo smaller")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > limit:
            raise too_large
    return bytes(parts)


async def fields(request: Request) -> dict[str, Any]:
    """The JSON object in the body; status 422 if the body is anything else."""
    try:
        given = json.loads(await body(request, _MAX_JSON))
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise HTTPException(422, "the body must be a JSON object")
    return given


async def box(request: Request, size: tuple[int, int]) -> Box | None:
    """The field ``box``, in whole pixels and clipped to a photo of (height, width); None if there is no such field.

    Status 422 if it is not four numbers, or too small.
    """
    given = (await fields(request)).get("box")
    if given is None:
        return None
    x0, y0, x1, y1 = _numbers(given, 4, "box")
    height, width = size
    clipped = max(0, round(x0)), max(0, round(y0)), min(width, round(x1)), min(height, round(y1))
    if min(clipped[2] - clipped[0], clipped[3] - clipped[1]) < SMALLEST_BOX:
        raise HTTPException(422, f"this part is too small to search for; each side needs {SMALLEST_BOX} pixels")
    return clipped


async def place(request: Request, size: tuple[int, int]) -> tuple[float, float]:
    """The field ``at``, (x, y) moved into a photo of (height, width); status 422 if it is not two numbers."""
    x, y = _numbers((await fields(request)).get("at"), 2, "at")
    return min(max(x, 0.0), size[1] - 1.0), min(max(y, 0.0), size[0] - 1.0)


def threshold(request: Request) -> float:
    """The parameter ``threshold`` of the address; status 422 unless it is at least 0 and below 1."""
    try:
        value = float(request.query_params.get("threshold", ""))
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise HTTPException(422, "threshold must be a number, at least 0 and below 1")
    return value


def _numbers(given: Any, count: int, name: str) -> list[float]:
    if isinstance(given, list) and len(given) == count and all(_is_finite(value) for value in given):
        return [float(value) for value in given]
    raise HTTPException(422, f"{name} must be {count} numbers")


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
