"""The manifest of a feature store: which parts it consists of, in which order, and what made them."""

import dataclasses
import re
from collections.abc import Iterable
from typing import Any

from delf_jax.errors import StoreError
from delf_jax.files.folder import Folder
from delf_jax.settings import ExtractionSettings

FORMAT = "delf-jax feature store"
_PART = re.compile(r"part-(\d{6,18})-([0-9a-f]{12})\.parquet")


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a store.

    Attributes:
        name: file name in the folder ``parts``.
        rows: photos in it.
        size: bytes of the file.
        sha256: of the file, in hexadecimal.
        superseded: rows that do not count, because a later part has their photo again.
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
    """Which parts a store consists of, and what made them.

    Attributes:
        settings: the settings of the extraction.
        fingerprint: of the model that made the features.
        dimension: length of a descriptor.
        parts: in the order in which they were written.
        head: sha256 of the store's own head file; None if it has none.
        next_part: number of the next part. No number is used twice, even if a repair removed its part.
    """

    settings: ExtractionSettings
    fingerprint: str
    dimension: int
    parts: tuple[Part, ...] = ()
    head: str | None = None
    next_part: int = 0

    def origin(self) -> dict[str, Any]:
        """What made the features, as JSON values."""
        return {
            "settings": self.settings.to_json(),
            "fingerprint": self.fingerprint,
            "dimension": self.dimension,
            "head": self.head,
        }

    def to_json(self) -> dict[str, Any]:
        """The manifest as JSON values; ``from_json`` reads them back."""
        return self.origin() | {"next_part": self.next_part, "parts": _to_json(self.parts)}

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> "Manifest":
        """Reads what ``to_json`` wrote; raises KeyError, TypeError, ValueError or AttributeError if it is damaged."""
        described = body | {
            "settings": ExtractionSettings.from_json(body["settings"]),
            "parts": _from_json(body["parts"]),
        }
        manifest = cls(**{field.name: described[field.name] for field in dataclasses.fields(cls)})
        manifest._require_sound()
        return manifest

    def changes_since(self, earlier: "Manifest") -> dict[str, Any]:
        """What changed since an earlier manifest, as JSON values; ``with_changes`` applies them."""
        superseded = {
            position: now.superseded - then.superseded
            for position, (now, then) in enumerate(zip(self.parts, earlier.parts))
            if now is not then
        }
        return {
            "next_part": self.next_part,
            "superseded": [[position, sorted(rows)] for position, rows in superseded.items() if rows],
            "parts": _to_json(self.parts[len(earlier.parts) :]),
        }

    def with_changes(self, body: dict[str, Any]) -> "Manifest":
        """The later manifest, from ``changes_since``; raises as ``from_json`` does."""
        parts = list(self.parts)
        for position, rows in body["superseded"]:
            if not 0 <= position < len(parts):
                raise ValueError("a part that does not exist has superseded rows")
            parts[position] = parts[position].without(rows)
        later = dataclasses.replace(self, parts=(*parts, *_from_json(body["parts"])), next_part=body["next_part"])
        later._require_sound()
        return later

    def _require_sound(self) -> None:
        if not all(_PART.fullmatch(part.name) for part in self.parts):  # a name must not lead out of the folder
            raise ValueError("the name of a part is not one that a store gives")
        numbers = [self.dimension, self.next_part]
        numbers += [number for part in self.parts for number in (part.rows, part.size, *part.superseded)]
        texts = [self.fingerprint, self.head or "", *(part.sha256 for part in self.parts)]
        if not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers) or not all(type(t) is str for t in texts):
            raise ValueError("a number or a text is of the wrong kind")
        if self.dimension < 1:
            raise ValueError("descriptors have at least one value")
        if any(row >= part.rows for part in self.parts for row in part.superseded):
            raise ValueError("a superseded row does not exist")


class LostManifest(StoreError):
    """What a store holds is no longer known, because a file is missing or damaged. The parts may be whole.

    Attributes:
        name: the missing or damaged file.
        state: "missing" or "damaged".
        earlier: an earlier manifest of the store that can still be read; None if there is none.
    """

    name: str
    state: str
    earlier: Manifest | None

    @classmethod
    def of(cls, folder: Folder, name: str, state: str, earlier: Manifest | None = None) -> "LostManifest":
        """The error for the file ``name`` of the store in ``folder``."""
        remedy = f"`delf-jax check {folder.address} --repair` makes it again from the parts"
        error = cls(f"{folder.address}: its {name} is {state}; {remedy}")
        error.name, error.state, error.earlier = name, state, earlier
        return error


def part_name(number: int, sha256: str) -> str:
    """File name of a part. With the digest, two writers never use the same name for different parts."""
    return f"part-{number:06d}-{sha256[:12]}.parquet"


def number_and_digest(name: str) -> tuple[int, str] | None:
    """The number and the digest in the name of a part; None if it is not the name of one.

    >>> number_and_digest("part-000007-0123456789ab.parquet")
    (7, '0123456789ab')
    """
    found = _PART.fullmatch(name)
    return (int(found[1]), found[2]) if found else None


def difference(
    manifest: Manifest, *, settings: ExtractionSettings, fingerprint: str, dimension: int, head: str | None
) -> str | None:
    """Why features of these settings do not belong into a store, in words; None if they do."""
    here, there = settings.to_json(), manifest.settings.to_json()
    different = [f"{name} {there[name]} there, {here[name]} here" for name in here if here[name] != there[name]]
    if not different and manifest.dimension != dimension:
        different = [f"descriptors of {manifest.dimension} values there, {dimension} here"]
    if not different and (manifest.fingerprint != fingerprint or (head and head != manifest.head)):
        different = ["the weights or the head file differ"]
    return "; ".join(different) or None


def _to_json(parts: Iterable[Part]) -> list[dict[str, Any]]:
    return [vars(part) | {"superseded": sorted(part.superseded)} for part in parts]


def _from_json(parts: Iterable[dict[str, Any]]) -> tuple[Part, ...]:
    return tuple(Part(**(part | {"superseded": frozenset(part["superseded"])})) for part in parts)
