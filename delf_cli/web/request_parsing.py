"""What a request asks for, checked: bodies of bounded size, boxes and places inside their photo."""

import json
import math
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from delf_cli.cropping import Box

# A smaller part holds too few features to be searched for, in pixels of the photo.
SMALLEST_BOX = 32
_MAX_JSON = 4096


async def body(request: Request, limit: int) -> bytes:
    """The body; 413 as soon as it is longer than ``limit`` bytes."""
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
    """The JSON object in the body; 422 where it is something else."""
    try:
        asked = json.loads(await body(request, _MAX_JSON))
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise HTTPException(422, "the body must be a JSON object")
    return asked


async def box(request: Request, size: tuple[int, int]) -> Box | None:
    """``box`` in whole pixels inside a photo of (height, width), None for all of it; 422 where it is none or tiny."""
    given = (await fields(request)).get("box")
    if given is None:
        return None
    x0, y0, x1, y1 = _numbers(given, 4, "box")
    height, width = size
    cut = max(0, round(x0)), max(0, round(y0)), min(width, round(x1)), min(height, round(y1))
    if min(cut[2] - cut[0], cut[3] - cut[1]) < SMALLEST_BOX:
        raise HTTPException(422, f"this part is too small to search for; each side needs {SMALLEST_BOX} pixels")
    return cut


async def place(request: Request, size: tuple[int, int]) -> tuple[float, float]:
    """``at``, (x, y) moved into a photo of (height, width); 422 where it is none."""
    x, y = _numbers((await fields(request)).get("at"), 2, "at")
    return min(max(x, 0.0), size[1] - 1.0), min(max(y, 0.0), size[0] - 1.0)


def threshold(request: Request) -> float:
    """``threshold`` of the address; 422 unless it is a number from 0 to below 1."""
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
