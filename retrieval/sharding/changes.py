"""Changes of an index in shards: each writes shards and returns the new layout, which the caller commits."""

import contextlib
import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from delf_jax.errors import SearchIndexError, one_line
from delf_jax.features import LocalFeatures
from delf_jax.files.changer import only_changer
from retrieval.indexing import manifest
from retrieval.indexing.columns import PhotoColumns
from retrieval.indexing.indexed_photos import unknown_photo
from retrieval.sharding.building import NewPhoto, build_shards, changed_shard
from retrieval.sharding.layout import Layout, ShardEntry, damaged_shard

# New photos go to one shard in groups of this size, so a small addition writes one shard and a large one is spread.
PHOTOS_AT_ONCE = 1024


@contextlib.contextmanager
def changing(root: Path) -> Iterator[Layout]:
    """The current layout, while no other writer can change it; if the change fails, what it has written is deleted.

    Raises:
        SearchIndexError: another writer is changing the index, or it cannot be written.
    """
    try:
        with only_changer(root, SearchIndexError):
            layout = Layout.read(root)
            layout.remove_others(root)
            try:
                yield layout
            except BaseException:
                Layout.read(root).remove_others(root)
                raise
    except OSError as error:
        reason = one_line(error)
        raise SearchIndexError(f"{root}: cannot be written ({reason}); free space or check its permissions") from error


def changed(root: Path, layout: Layout, removed: Collection[str], added: Mapping[str, LocalFeatures]) -> Layout:
    """Removes photos and adds others; a photo whose name is in the index already stays in its shard.

    Raises:
        SearchIndexError: a photo to remove is not there, dimensions differ, a shard is damaged, or no feature is left.
    """
    columns = {entry.name: _columns(root, entry) for entry in layout.shards}
    owner = {name: shard for shard, held in columns.items() for name in held.names}
    if missing := [name for name in removed if name not in owner]:
        raise unknown_photo(missing[0])
    gone: dict[str, set[str]] = {shard: set() for shard in columns}
    for name in (*removed, *(name for name in added if name in owner)):
        gone[owner[name]].add(name)
    features = {shard: _features_without(held, gone[shard]) for shard, held in columns.items()}
    coming: dict[str, list[NewPhoto]] = {shard: [] for shard in columns}

    def send(shard: str, photos: Iterable[NewPhoto]) -> None:
        for photo in photos:
            coming[shard].append(photo)
            features[shard] += len(photo.features)

    numbered = [NewPhoto(number, *photo) for number, photo in enumerate(added.items(), layout.photos_ever)]
    for photo in numbered:
        if photo.name in owner:
            send(owner[photo.name], [photo])
    strangers = [photo for photo in numbered if photo.name not in owner]
    for start in range(0, len(strangers), PHOTOS_AT_ONCE):
        send(min(features, key=lambda shard: features[shard]), strangers[start : start + PHOTOS_AT_ONCE])
    emptied = [shard for shard, left in features.items() if not left]
    if len(emptied) == len(features):
        raise SearchIndexError("nothing to index: no feature would be left; keep photos that show something")
    number = layout.photos_ever + len(added)
    for shard in emptied:
        # Photos without features may remain; they count, and move to another shard.
        remaining = [photo for photo in columns[shard] if photo[0] not in gone[shard]]
        remaining += [(photo.name, photo.features) for photo in coming[shard]]
        home = max(features, key=lambda shard: features[shard])
        send(home, (NewPhoto(number + i, *photo) for i, photo in enumerate(remaining)))
        number += len(remaining)
    entries = [
        changed_shard(
            root, layout.entry(shard), removed=gone[shard], added=sorted(coming[shard], key=lambda p: p.number)
        )
        for shard in columns
        if shard not in emptied and (gone[shard] or coming[shard])
    ]
    return dataclasses.replace(layout.replaced(entries, gone=emptied), photos_ever=number)


def rebuilt(
    root: Path, layout: Layout, photos: Iterable[tuple[str, LocalFeatures]], damaged: Collection[str]
) -> Layout:
    """Builds damaged shards again, of those photos that no other shard holds.

    Raises:
        SearchIndexError: none of the photos belongs to the damaged shards, or there are fewer of them than shards.
    """
    held = {name for e in layout.shards if e.name not in damaged for name in _columns(root, e).names}
    entries, photos_ever, _ = build_shards(
        ((name, features) for name, features in photos if name not in held),
        root,
        names=list(damaged),
        generation=max(layout.entry(name).generation for name in damaged) + 1,
        first_number=layout.photos_ever,
        backend=layout.backend,
        description=layout.description,
    )
    return dataclasses.replace(layout.replaced(entries), photos_ever=photos_ever)


def _columns(root: Path, entry: ShardEntry) -> PhotoColumns:
    """The columns of a shard, after comparing its names and counts with their checksums; the rest is not read."""
    folder = root / entry.folder
    reason = manifest.file_damage(root, f"{entry.folder}/{manifest.NAME}", entry.index)
    if not reason:
        files = manifest.read(folder)["files"]
        found = [manifest.file_damage(folder, name, files[name]) for name in PhotoColumns.SMALL_FILES]
        reason = next(filter(None, found), None)
    if reason:
        raise damaged_shard(root, entry.name, reason)
    return PhotoColumns.open(folder)


def _features_without(columns: PhotoColumns, names: Collection[str]) -> int:
    counts = np.diff(columns.offsets)
    return int(sum(count for name, count in zip(columns.names, counts) if name not in names))
