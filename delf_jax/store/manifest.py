"""What a feature store consists of: which parts count, in which order, and what made them."""

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from delf_jax.settings import ExtractionSettings

_PART = re.compile(r"part-(\d{6,18})-([0-9a-f]{12})\.parquet")


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a store.

    Attributes:
        name: file name in the folder ``parts``.
        rows: photos in it.
        size: bytes of the file.
        sha256: of the file, in hexadecimal.
        superseded: rows whose photo a later part holds anew.
    """

    name: str
    rows: int
    size: int
    sha256: str
    superseded: frozenset[int] = frozenset()

    @property
    def photos(self) -> int:
        """Rows that count."""
        return self.rows - len(self.superseded)

    def without(self, rows: Iterable[int]) -> "Part":
        """The same part with these rows superseded too."""
        return dataclasses.replace(self, superseded=self.superseded | frozenset(rows))


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Everything a store says about itself.

    Attributes:
        settings: what the extraction was asked to do.
        fingerprint: of the model that made the features.
        dimension: length of a descriptor.
        parts: in the order in which they were written.
        head: sha256 of the store's own head file; None where it has none.
        next_part: number of the next part; never used twice, whatever was repaired away.
    """

    settings: ExtractionSettings
    fingerprint: str
    dimension: int
    parts: tuple[Part, ...] = ()
    head: str | None = None
    next_part: int = 0

    def origin(self) -> dict[str, Any]:
        """What made the features, in plain JSON values."""
        return {
            "settings": self.settings.to_json(),
            "fingerprint": self.fingerprint,
            "dimension": self.dimension,
            "head": self.head,
        }

    def to_json(self) -> dict[str, Any]:
        """All of it, in plain JSON values; ``from_json`` reads them back."""
        return self.origin() | {"next_part": self.next_part, "parts": _to_json(self.parts)}

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> "Manifest":
        """Reads what ``to_json`` wrote; KeyError, TypeError, ValueError or AttributeError where that is damaged."""
        described = body | {
            "settings": ExtractionSettings.from_json(body["settings"]),
            "parts": _from_json(body["parts"]),
        }
        manifest = cls(**{field.name: described[field.name] for field in dataclasses.fields(cls)})
        manifest._require_sound()
        return manifest

    def since(self, earlier: "Manifest") -> dict[str, Any]:
        """What came after an earlier state of the store, in plain JSON values; ``followed`` reads them back."""
        gone = {
            position: now.superseded - then.superseded
            for position, (now, then) in enumerate(zip(self.parts, earlier.parts))
            if now is not then
        }
        return {
            "next_part": self.next_part,
            "superseded": [[position, sorted(rows)] for position, rows in gone.items() if rows],
            "parts": _to_json(self.parts[len(earlier.parts) :]),
        }

    def followed(self, body: dict[str, Any]) -> "Manifest":
        """The later state that ``since`` was asked of; raises as ``from_json``."""
        parts = list(self.parts)
        for position, rows in body["superseded"]:
            if not 0 <= position < len(parts):
                raise ValueError("rows of a part that is not there are superseded")
            parts[position] = parts[position].without(rows)
        later = dataclasses.replace(self, parts=(*parts, *_from_json(body["parts"])), next_part=body["next_part"])
        later._require_sound()
        return later

    def _require_sound(self) -> None:
        if not all(_PART.fullmatch(part.name) for part in self.parts):  # a name must not lead out of the folder
            raise ValueError("a part's name is not one that a store gives")
        numbers = [self.dimension, self.next_part]
        numbers += [number for part in self.parts for number in (part.rows, part.size, *part.superseded)]
        texts = [self.fingerprint, self.head or "", *(part.sha256 for part in self.parts)]
        if not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers) or not all(type(t) is str for t in texts):
            raise ValueError("a number or a text is of the wrong kind")
        if self.dimension < 1:
            raise ValueError("descriptors have at least one value")
        if any(row >= part.rows for part in self.parts for row in part.superseded):
            raise ValueError("a row that no part has is superseded")


def part_name(number: int, sha256: str) -> str:
    """File name of a part; the digest keeps two writers from ever using the same one."""
    return f"part-{number:06d}-{sha256[:12]}.parquet"


def number_and_digest(name: str) -> tuple[int, str] | None:
    """What ``part_name`` made a name of; None where it is none.

    >>> number_and_digest("part-000007-0123456789ab.parquet")
    (7, '0123456789ab')
    """
    found = _PART.fullmatch(name)
    return (int(found[1]), found[2]) if found else None


def difference(
    manifest: Manifest, *, settings: ExtractionSettings, fingerprint: str, dimension: int, head: str | None
) -> str | None:
    """What keeps features of these settings out of a store, in words; None where they fit."""
    asked, kept = settings.to_json(), manifest.settings.to_json()
    different = [f"{name} {kept[name]} there, {asked[name]} here" for name in asked if asked[name] != kept[name]]
    if not different and manifest.dimension != dimension:
        different = [f"descriptors of {manifest.dimension} values there, {dimension} here"]
    if not different and (manifest.fingerprint != fingerprint or (head and head != manifest.head)):
        different = ["the weights or the head file differ"]
    return "; ".join(different) or None


def _to_json(parts: Iterable[Part]) -> list[dict[str, Any]]:
    return [vars(part) | {"superseded": sorted(part.superseded)} for part in parts]


def _from_json(parts: Iterable[dict[str, Any]]) -> tuple[Part, ...]:
    return tuple(Part(**(part | {"superseded": frozenset(part["superseded"])})) for part in parts)
