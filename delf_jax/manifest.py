"""What a feature store consists of: the one file that decides which parts count."""

import dataclasses
import hashlib
import json
import re
from typing import Any

from delf_jax import strict_json
from delf_jax.errors import StoreError
from delf_jax.settings import ExtractionSettings

FILE = "manifest.json"
VERSION = 1
_PART = re.compile(r"part-\d{6,}-[0-9a-f]{12}\.parquet")


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

    def to_bytes(self) -> bytes:
        """The file; ``from_bytes`` reads it back."""
        body = {
            "settings": self.settings.to_json(),
            "fingerprint": self.fingerprint,
            "dimension": self.dimension,
            "head": self.head,
            "next_part": self.next_part,
            "parts": [dataclasses.asdict(p) | {"superseded": sorted(p.superseded)} for p in self.parts],
        }
        envelope = {"format": "delf-jax feature store", "version": VERSION, "sha256": _digest(body), "store": body}
        return json.dumps(envelope, ensure_ascii=False, indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> "Manifest":
        """Reads what ``to_bytes`` wrote; StoreError, naming the store ``name``, when it is damaged or newer."""
        damaged = StoreError(f"{name}: its {FILE} is damaged; restore that file or extract into another folder")
        try:
            envelope = strict_json.loads_object(data)
            version = envelope["version"]
            if envelope["format"] != "delf-jax feature store":
                raise StoreError(f"{name}: is not a feature store; give one that `delf-jax extract` wrote")
            if version > VERSION:
                raise StoreError(f"{name}: was written by a newer delf-jax (format {version}); update delf-jax")
            body = envelope["store"]
            if _digest(body) != envelope["sha256"]:
                raise damaged
            return cls._from_body(body)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise damaged from None

    @classmethod
    def _from_body(cls, body: dict[str, Any]) -> "Manifest":
        parts = tuple(Part(**(part | {"superseded": frozenset(part["superseded"])})) for part in body["parts"])
        if not all(_PART.fullmatch(part.name) for part in parts):  # a name must not lead out of the folder
            raise ValueError("a part's name is not one that a store gives")
        numbers = [body["dimension"], body["next_part"], *(n for p in parts for n in (p.rows, p.size, *p.superseded))]
        texts = [body["fingerprint"], body["head"] or "", *(part.sha256 for part in parts)]
        if not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers) or not all(type(t) is str for t in texts):
            raise ValueError("a number or a text is of the wrong kind")
        if body["dimension"] < 1:
            raise ValueError("descriptors have at least one value")
        if any(row >= part.rows for part in parts for row in part.superseded):
            raise ValueError("a row that no part has is superseded")
        return cls(
            settings=ExtractionSettings.from_json(body["settings"]),
            fingerprint=body["fingerprint"],
            dimension=body["dimension"],
            parts=parts,
            head=body["head"],
            next_part=body["next_part"],
        )


def part_name(number: int, sha256: str) -> str:
    """File name of a part; the digest keeps two writers from ever using the same one."""
    return f"part-{number:06d}-{sha256[:12]}.parquet"


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


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
