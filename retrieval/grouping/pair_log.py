"""Which pairs of photos were verified, and what was found: in memory, or in a file that grows by a line a pair."""

import contextlib
import json
import os
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from jaxtyping import Float


class Finding(NamedTuple):
    """What proves that two photos show the same thing.

    Attributes:
        inliers: matches that agree on the transform.
        log10_nfa: of this pair alone.
        transform: float64 [3, 3], from the first photo to the second.
        regions: float64 [2, 4], boxes [x0, y0, x1, y1], edges in pixels, around the inliers in both photos.
        copy: the photos are copies of one picture.
    """

    inliers: int
    log10_nfa: float
    transform: Float[np.ndarray, "3 3"]
    regions: Float[np.ndarray, "2 4"]
    copy: bool


class PairLog:
    """Findings by the digests of the two photos' features, in the order in which they were verified.

    A run that was killed leaves at most the last line incomplete; it is dropped. So the next run goes on.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """Reads the file, and drops what is not whole; without a path nothing is kept.

        Raises:
            OSError: the file cannot be read or written.
        """
        self._found: dict[tuple[str, str], Finding | None] = {}
        self._file: IO[bytes] | None = None
        if path is not None:
            whole = self._read(Path(path))
            self._file = open(path, "ab")  # noqa: SIM115 - closed by ``close``
            self._file.truncate(whole)

    def __contains__(self, pair: tuple[str, str]) -> bool:
        return pair in self._found

    def __getitem__(self, pair: tuple[str, str]) -> Finding | None:
        """What was found; None if the pair proves nothing."""
        return self._found[pair]

    def add(self, found: dict[tuple[str, str], Finding | None]) -> None:
        """Keeps these pairs; OSError if they cannot be written."""
        self._found |= found
        if self._file is not None and found:
            self._file.write(b"".join(map(_line, found.items())))
            self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()

    def _read(self, path: Path) -> int:
        """The length of the file's whole lines."""
        whole = 0
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            for line in file:
                try:
                    pair, finding = _parsed(line)
                except (ValueError, TypeError, KeyError):
                    break
                self._found[pair] = finding
                whole += len(line)
        return whole


def _line(item: tuple[tuple[str, str], Finding | None]) -> bytes:
    pair, finding = item
    record: dict[str, Any] = {"pair": pair}
    if finding is not None:
        arrays = {"transform": finding.transform.tolist(), "regions": finding.regions.tolist()}
        record |= {**finding._asdict(), **arrays}
    return (json.dumps(record) + "\n").encode()


def _parsed(line: bytes) -> tuple[tuple[str, str], Finding | None]:
    """The pair of a line and its finding; ValueError, TypeError or KeyError if it is not a whole line."""
    if not line.endswith(b"\n"):
        raise ValueError("the line is cut")
    record = json.loads(line)
    first, second = record.pop("pair")
    if not record:
        return (first, second), None
    transform, regions = (np.array(record[name], np.float64) for name in ("transform", "regions"))
    if (transform.shape, regions.shape) != ((3, 3), (2, 4)):
        raise ValueError("the arrays have other shapes")
    inliers, log10_nfa, copy = int(record["inliers"]), float(record["log10_nfa"]), bool(record["copy"])
    return (first, second), Finding(inliers, log10_nfa, transform, regions, copy)
