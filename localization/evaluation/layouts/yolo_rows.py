"""Rows of YOLO's label files, and which dialect they are: nothing in the files says it.

A row is a class and numbers, which are shares of the photo:

    x y w h                     centre and size of a box
    x y w h confidence          a box that a network found
    x1 y1 x2 y2 x3 y3 ...       an outline, maybe with a confidence at the end
    x1 y1 x2 y2 x3 y3 x4 y4     an oriented box: a rectangle in pixels
    x y w h kx ky (v) ...       a box and keypoints, all rows with equally many; v is 0, 1 or 2
"""

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from delf_jax.errors import DelfError
from delf_jax.files.text_files import read_lines, read_text
from localization.evaluation.annotated_photo import Edges

_ROUNDING = 1e-3
# Keypoints may lie a little outside of their box, and boxes outside of the photo.
_SLACK = 0.05
_KEYPOINTS = re.compile(r"^kpt_shape:\s*(?:\[|-)\s*(\d+)\s*(?:,|-)\s*([23])\b", re.MULTILINE)


class Row(NamedTuple):
    """One object.

    Attributes:
        place: file and line, for errors.
        numbers: what follows the class.
    """

    place: str
    numbers: tuple[float, ...]


class Dialect(NamedTuple):
    """What rows of more than five numbers are.

    Attributes:
        has_box: their first four numbers are the centre and size of a box.
        is_outline: their points are the outline of the object, and not only of a rectangle around it.
    """

    has_box: bool
    is_outline: bool

    def box(self, row: Row) -> Edges:
        """[x0, y0, x1, y1], shares of the photo."""
        if len(row.numbers) <= 5 or self.has_box:
            x, y, width, height = row.numbers[:4]
            return x - width / 2, y - height / 2, x + width / 2, y + height / 2
        xs, ys = _points(row.numbers)
        return min(xs), min(ys), max(xs), max(ys)

    def outline(self, row: Row) -> tuple[float, ...] | None:
        """x1, y1, x2, y2, ..., shares of the photo; None if the row has no outline."""
        even = len(row.numbers) // 2 * 2
        return row.numbers[:even] if self.is_outline and even >= 6 else None


def read_rows(file: Path) -> Iterator[Row]:
    """The objects of a label file; none if it is not there, as for photos without objects.

    Raises:
        DelfError: a row is no class and numbers, or a box with numbers outside of 0 to 1; it names file and line.
    """
    for line, text in read_lines(file) if file.is_file() else ():
        place = f"{file}: line {line}"
        try:
            label, *numbers = map(float, text.split())
        except ValueError:
            raise DelfError(f"{place}: is not a class and numbers; correct it") from None
        if not (label >= 0 and label == label // 1 and all(map(math.isfinite, numbers))):
            raise DelfError(f"{place}: is not the number of a class and finite numbers; correct it")
        if len(numbers) < 4:
            raise DelfError(f"{place}: has {len(numbers)} numbers after the class; a box has four")
        row = Row(place, tuple(numbers))
        if len(numbers) <= 5:
            require_shares([row])
        yield row


def require_shares(rows: Iterable[Row]) -> None:
    """Raises DelfError, which names file and line, if a number is outside of 0 to 1."""
    for row in rows:
        if not _are_shares(row.numbers):
            raise DelfError(f"{row.place}: {_why_not(row.numbers)}")


def keypoints_of(root: Path) -> int | None:
    """How many numbers the keypoints of an object have, from ``kpt_shape`` in a YAML file; None without it."""
    for file in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        if found := _KEYPOINTS.search(read_text(file)):
            return int(found[1]) * int(found[2])
    return None


def dialect_of(rows: Iterable[tuple[Row, tuple[int, int]]], *, keypoints: int | None) -> Dialect:
    """The dialect that fits all rows of a data set.

    Args:
        rows: each with (width, height) of its photo.
        keypoints: of ``keypoints_of``.

    Raises:
        DelfError: a row fits no dialect, or all rows fit two that mean different things; it names file and line.
    """
    possible = {"outline", "keypoints"}
    are_rectangles = True
    first: Row | None = None
    for row, size in rows:
        count = len(row.numbers)
        if count <= 5:
            continue
        first = first or row
        if keypoints is not None:
            if count - 4 - keypoints not in (0, 1):
                raise DelfError(f"{row.place}: has {count} numbers after the class; kpt_shape says {4 + keypoints}")
            continue
        if not _are_shares(row.numbers):
            possible.discard("outline")
        if count != len(first.numbers) or not _may_be_keypoints(row.numbers):
            possible.discard("keypoints")
        are_rectangles = are_rectangles and count in (8, 9) and _is_rectangle(row.numbers, size)
        if not possible:
            raise DelfError(f"{row.place}: {_why_not(row.numbers)}")
    if keypoints is not None:
        return Dialect(True, False)
    if are_rectangles and first is not None and "outline" in possible:
        return Dialect(False, False)
    if first is not None and len(possible) > 1:
        raise DelfError(
            f"{first.place}: may be an outline, or a box with keypoints; name kpt_shape in data.yaml for keypoints, "
            "or put outlines into instance_segmentation/labels"
        )
    return Dialect("keypoints" in possible, "outline" in possible)


def _points(numbers: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    even = len(numbers) // 2 * 2
    return numbers[:even:2], numbers[1:even:2]


def _are_shares(numbers: Iterable[float]) -> bool:
    return all(-_ROUNDING <= number <= 1 + _ROUNDING for number in numbers)


def _outside(numbers: Iterable[float]) -> float:
    return next(number for number in numbers if not _are_shares([number]))


def _may_be_keypoints(numbers: tuple[float, ...]) -> bool:
    x, y, width, height = numbers[:4]
    edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    if not (width > 0 and height > 0 and all(-_SLACK <= edge <= 1 + _SLACK for edge in edges)):
        return False
    rest = numbers[4:]
    if len(rest) % 3 == 0 and all(v in (0, 1, 2) for v in rest[2::3]):
        return _are_shares(rest[::3]) and _are_shares(rest[1::3])
    reach_x, reach_y = width / 2 + _SLACK, height / 2 + _SLACK
    return len(rest) % 2 == 0 and all(
        (px, py) == (0, 0) or (abs(px - x) <= reach_x and abs(py - y) <= reach_y)
        for px, py in zip(rest[::2], rest[1::2])
    )


def _is_rectangle(numbers: tuple[float, ...], size: tuple[int, int]) -> bool:
    """Whether four corners are those of a rectangle in the photo, within one pixel or a hundredth of its sides."""
    xs, ys = _points(numbers)
    corners = [complex(x * size[0], y * size[1]) for x, y in zip(xs, ys)]
    diagonals = abs(corners[0] - corners[2]), abs(corners[1] - corners[3])
    middles = abs(corners[0] + corners[2] - corners[1] - corners[3]) / 2
    near = max(1.0, 0.01 * max(diagonals))
    return middles <= near and abs(diagonals[0] - diagonals[1]) <= near


def _why_not(numbers: tuple[float, ...]) -> str:
    if not _are_shares(numbers):
        return f"has {_outside(numbers):g}; coordinates are shares of the photo, from 0 to 1"
    return f"{len(numbers)} numbers after the class are neither an outline nor keypoints, as the rows before are"
