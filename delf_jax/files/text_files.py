"""Lists and tables that people, spreadsheets and other programs wrote: any byte-order mark, spaces after commas."""

import codecs
import csv
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from delf_jax.errors import FileFormatError, one_line, reason_of

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file in UTF-8, with or without a byte-order mark, or in UTF-16 with one.

    Raises:
        FileFormatError: the file cannot be read, or is not in UTF-8; the message has the line and the column.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise FileFormatError(f"{os.fspath(path)}: cannot be read ({reason_of(error)}); check the path") from None
    encoding = "utf-16" if data.startswith(_UTF_16) else "utf-8"
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        before = data[: error.start].decode(encoding, "replace").split("\n")
        place = f"line {len(before)}, column {len(before[-1]) + 1}"
        raise FileFormatError(f"{os.fspath(path)}: {place}: is not text in UTF-8; save the file as UTF-8") from None


def read_lines(path: str | os.PathLike[str]) -> list[tuple[int, str]]:
    """Number, from 1, and text of each line that is not blank, without the spaces around it. Raises as ``read_text``.

    Only line feeds and carriage returns end a line: a name may hold any other separator of Unicode.
    """
    lines = enumerate(io.StringIO(read_text(path), newline=None), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def read_table(path: str | os.PathLike[str], columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Line number and cells, by column, of each row of a CSV file; a row may end early, then its last cells are empty.

    Args:
        path: the file, with the names of its columns in the first line.
        columns: those that are needed; others are read too.

    Raises:
        FileFormatError: it is not a CSV file in UTF-8, lacks a column, or has a row of more cells than columns.
    """
    rows = csv.reader(io.StringIO(read_text(path), newline=""), skipinitialspace=True, strict=True)
    try:
        names = [name.strip() for name in next(rows, [])]
        if lacking := [name for name in columns if name not in names]:
            raise FileFormatError(
                f"{path}: no column {lacking[0]}; the first line must name the columns {','.join(columns)}"
            )
        if repeated := [name for place, name in enumerate(names) if name and name in names[:place]]:
            raise FileFormatError(f"{path}: line 1 has two columns {repeated[0]}; rename one")
        for cells in rows:
            if len(cells) > len(names):
                raise FileFormatError(
                    f"{path}: line {rows.line_num}, column {len(names) + 1}: there are only {len(names)} columns; "
                    "put names with commas into quotes"
                )
            if any(cell.strip() for cell in cells):
                yield rows.line_num, dict.fromkeys(names, "") | {k: cell.strip() for k, cell in zip(names, cells)}
    except csv.Error as error:
        raise FileFormatError(f"{path}: line {rows.line_num}: {one_line(error)}; save it as CSV again") from None


def read_number(path: str | os.PathLike[str], line: int, row: Mapping[str, str], column: str) -> float:
    """A cell of ``read_table`` as a finite number; FileFormatError, with line and column, if it is none."""
    try:
        number = float(row[column])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise FileFormatError(f"{path}: line {line}, column {column}: {row[column][:40]!r} is not a number; correct it")
    return number
