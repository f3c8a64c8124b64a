"""``metrics.jsonl``: one JSON object per line, the same for a resumed run as for an uninterrupted one, except times."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from delf_jax.files import atomic


@runtime_checkable
class Board(Protocol):
    """Draws curves during a run, for example tensorboardX's SummaryWriter."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Adds a point to a curve."""
        ...


class MetricsLog:
    """Appends lines to a file; lines after the step that a run resumes from are removed first."""

    def __init__(self, path: str | os.PathLike[str], *, step: int, board: Board | None = None) -> None:
        path = Path(path)
        kept = [line for line in read(path) if line["step"] <= step]
        atomic.write_bytes(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed by close)
        self._board = board

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line: the step (of those done) and its values; numbers that are not finite become null."""
        plain = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step} | plain) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a log, without a last line that was cut off when the process died."""
    lines = []
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    for line in text.split("\n"):
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines
