"""The folder of an index in shards: one index for each shard, and a manifest that lists those that count.

    INDEX/manifest.json             settings, counts, and the shards that count, each with its checksums
    INDEX/head.safetensors          the head, if the features have one of their own
    INDEX/shards/00002.5/           shard 00002 in its fifth generation: an index like any other
    INDEX/shards/00002.5.npy        int64 [p]: the numbers of its photos

A photo's number says how many photos were added before it; a number is never used again. A change writes new
generations of the shards that it touches beside the older ones, and then replaces the manifest. So the index is whole
at every moment, and readers go on with the shards that they have open.
"""

import dataclasses
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from delf_jax.errors import SearchIndexError, one_line
from delf_jax.files import atomic
from delf_jax.files.envelope import encode_envelope
from retrieval.indexing import manifest
from retrieval.indexing.description import IndexDescription

HEAD = "head.safetensors"
SHARDS = "shards"


class ShardChanged(SearchIndexError):
    """A shard has been replaced by another generation than the one that was asked for."""


@dataclasses.dataclass(frozen=True)
class ShardEntry:
    """A shard as the manifest lists it.

    Attributes:
        name: five digits.
        generation: how many times it was written anew.
        photos, features: their numbers.
        index: bytes and sha256 of its index's manifest, which has the checksums of the rest.
        numbers: bytes and sha256 of the file of its photos' numbers.
    """

    name: str
    generation: int
    photos: int = 0
    features: int = 0
    index: dict[str, Any] = dataclasses.field(default_factory=dict)
    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def following(self) -> "ShardEntry":
        """The entry of the next generation, which is not written yet."""
        return ShardEntry(self.name, self.generation + 1)

    @property
    def folder(self) -> str:
        """Its index, as a path in the folder of the whole."""
        return f"{SHARDS}/{self.name}.{self.generation}"

    @property
    def numbers_file(self) -> str:
        """The numbers of its photos, as a path in the folder of the whole."""
        return f"{self.folder}.npy"

    def damage(self, root: Path) -> list[str]:
        """One line for every damaged file; empty if nothing is wrong."""
        folder = root / self.folder
        try:
            found = [
                manifest.file_damage(root, f"{self.folder}/{manifest.NAME}", self.index),
                manifest.file_damage(root, self.numbers_file, self.numbers),
            ]
            reasons = [reason for reason in found if reason]
            if not found[0]:
                reasons += [f"{self.folder}/{reason}" for reason in manifest.damage(folder, manifest.read(folder))]
        except (OSError, SearchIndexError) as error:  # a change that ended meanwhile removes the older generation
            reasons = [f"{self.folder} cannot be read ({one_line(error)})"]
        return reasons


@dataclasses.dataclass(frozen=True)
class Layout:
    """The manifest of an index in shards.

    Attributes:
        shards: those that count, in the order of their names.
        photos_ever: the number that the next photo gets.
        dimension: of the descriptors.
        backend: ``scann`` or ``exact``.
        description: what the index knows of its photos, without the head file.
        head: bytes and sha256 of the head file; None if there is none.
    """

    shards: tuple[ShardEntry, ...]
    photos_ever: int
    dimension: int
    backend: str
    description: IndexDescription
    head: dict[str, Any] | None

    @classmethod
    def read(cls, root: Path) -> "Layout":
        """Reads the manifest at ``root``; SearchIndexError if it is missing, damaged or newer."""
        described = manifest.read(root, manifest.SHARDED)
        try:
            found = cls(
                shards=tuple(map(_entry, described["shards"])),
                photos_ever=described["photos_ever"],
                dimension=described["dimension"],
                backend=described["backend"],
                description=IndexDescription.from_json(described),
                head=described["head"],
            )
            if not isinstance(found.head, dict | None) or not _are_counts(found.photos_ever, found.dimension):
                raise ValueError("a count is not an integer, or the head is not an entry")
            return found
        except (KeyError, TypeError, ValueError) as error:
            reason = one_line(error)
            raise SearchIndexError(f"{root}: its manifest is damaged ({reason}); build the index again") from error

    def write(self, root: Path) -> None:
        """Replaces the manifest: from now on these shards count."""
        described = {name: value for name, value in vars(self).items() if name != "description"}
        described |= self.description.to_json()
        described["shards"] = [dataclasses.asdict(entry) for entry in self.shards]
        atomic.write_bytes(root / manifest.NAME, encode_envelope(manifest.SHARDED, manifest.VERSION, described))

    def copy(self, root: Path, folder: Path) -> None:
        """Copies the shards that count, the head and the manifest from ``root`` into an empty folder."""
        for entry in self.shards:
            shutil.copytree(root / entry.folder, folder / entry.folder)
            shutil.copyfile(root / entry.numbers_file, folder / entry.numbers_file)
        if self.head is not None:
            shutil.copyfile(root / HEAD, folder / HEAD)
        self.write(folder)

    @property
    def entries(self) -> dict[str, ShardEntry]:
        """The shards by their names."""
        return {entry.name: entry for entry in self.shards}

    def entry(self, name: str) -> ShardEntry:
        """The shard of this name; SearchIndexError if there is none."""
        for entry in self.shards:
            if entry.name == name:
                return entry
        raise SearchIndexError(f"shard {name}: is not in the index any more; open the index again")

    def replaced(self, changed: Iterable[ShardEntry], gone: Iterable[str] = ()) -> "Layout":
        """This layout with the ``changed`` shards in place of those of the same names, and without those ``gone``."""
        entries = {entry.name: entry for entry in (*self.shards, *changed)}
        kept = tuple(entries[name] for name in sorted(entries) if name not in set(gone))
        return dataclasses.replace(self, shards=kept)

    def damage(self, root: Path) -> dict[str, list[str]]:
        """What is damaged, by the names of the shards; the head has an entry of its own."""
        found = {entry.name: entry.damage(root) for entry in self.shards}
        if self.head is not None and (reason := manifest.file_damage(root, HEAD, self.head)):
            found[HEAD] = [reason]
        return {name: reasons for name, reasons in found.items() if reasons}

    def remove_others(self, root: Path) -> None:
        """Deletes generations that do not count: older ones, and those of a change that was interrupted."""
        counting = {Path(path).name for entry in self.shards for path in (entry.folder, entry.numbers_file)}
        for path in (root / SHARDS).glob("*"):
            if path.name not in counting:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _entry(described: dict[str, Any]) -> ShardEntry:
    """A shard from its JSON; TypeError or ValueError if ``Layout.write`` cannot have written it."""
    entry = ShardEntry(**described)
    if not isinstance(entry.name, str) or not entry.name.isdecimal():
        raise ValueError(f"a shard has the name {entry.name!r:.40}")
    if not _are_counts(entry.generation, entry.photos, entry.features):
        raise ValueError(f"a count of shard {entry.name:.40} is not an integer")
    if not isinstance(entry.index, dict) or not isinstance(entry.numbers, dict):
        raise ValueError(f"shard {entry.name:.40} lists no files")
    return entry


def _are_counts(*values: Any) -> bool:
    return all(type(value) is int and value >= 0 for value in values)


def damaged_shard(root: Path, name: str, reason: str) -> SearchIndexError:
    """The error for a damaged shard: which, why, and how to go on."""
    remedy = f"build it again with `delf-jax index STORE --out {root} --rebuild`"
    return SearchIndexError(f"{root}: shard {name} is damaged, {reason}; {remedy}")
