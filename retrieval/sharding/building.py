"""Writes shards: all of a stream of photos, or the next generation of one."""

import array
import contextlib
import dataclasses
import io
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from delf_jax.errors import SearchIndexError
from delf_jax.features import LocalFeatures
from delf_jax.files import atomic
from retrieval.indexing import manifest
from retrieval.indexing.backends import Backend, backend_class
from retrieval.indexing.columns import ColumnWriter, require_dimension_of_others
from retrieval.indexing.description import IndexDescription
from retrieval.indexing.index import Index
from retrieval.indexing.indexed_photos import IndexedPhotos
from retrieval.sharding.layout import ShardEntry
from retrieval.sharding.shard import Shard


def build_shards(
    photos: Iterable[tuple[str, LocalFeatures]],
    root: Path,
    *,
    names: Sequence[str],
    generation: int,
    first_number: int,
    backend: str,
    description: IndexDescription,
) -> tuple[list[ShardEntry], int, int]:
    """Writes new shards from a stream of photos; each photo goes to the shard with the fewest features so far.

    Memory holds the names of the photos and the backend of one shard at a time.

    Args:
        root: folder of the whole index.
        names: of the shards to write.
        generation: of all of them.
        first_number: number of the first photo.
        backend: of the shards.
        description: of the whole index, which keeps the head file.

    Returns:
        The shards, the number that the next photo gets, and the dimension of the descriptors.

    Raises:
        SearchIndexError: a name comes twice, dimensions differ, or fewer photos have features than there are shards.
    """
    searcher = backend_class(backend)
    entries = [ShardEntry(name, generation) for name in names]
    with contextlib.ExitStack() as files:
        for entry in entries:
            (root / entry.folder).mkdir(parents=True)
        writers = [files.enter_context(ColumnWriter(root / entry.folder)) for entry in entries]
        numbers = [array.array("q") for _ in names]
        number, dimension, with_features = first_number, 0, 0
        for name, features in photos:
            if any(name in writer.photos.sizes for writer in writers):
                raise SearchIndexError(f"{name}: comes twice; give every photo a name of its own")
            if len(features):
                dimension = dimension or features.descriptors.shape[1]
                require_dimension_of_others(name, features, dimension)
                with_features += 1
            shard = min(range(len(names)), key=lambda i: writers[i].photos.features)
            writers[shard].add(name, features)
            numbers[shard].append(number)
            number += 1
        if 0 < with_features < len(names):
            few = f"{with_features} photos with features cannot fill {len(names)} shards"
            raise SearchIndexError(f"{few}; take at most {with_features}")
        for place, (writer, held) in enumerate(zip(writers, numbers)):
            entries[place] = _finished(root, entries[place], writer, np.array(held, np.int64), searcher, description)
    return entries, number, dimension


def _finished(
    root: Path,
    entry: ShardEntry,
    writer: ColumnWriter,
    numbers: Int[np.ndarray, " p"],
    searcher: type[Backend],
    description: IndexDescription,
) -> ShardEntry:
    """Builds the backend of a shard whose columns are written, saves it, and releases it."""
    columns = writer.finish()
    photos = IndexedPhotos(columns, searcher.build(columns.descriptors))
    index = Index(photos, dataclasses.replace(description, head_path=None))
    index.complete_folder(root / entry.folder)
    return written(root, entry, index, numbers)


class NewPhoto(NamedTuple):
    """A photo to add to a shard, with its number."""

    number: int
    name: str
    features: LocalFeatures


def changed_shard(root: Path, entry: ShardEntry, *, removed: Collection[str], added: Sequence[NewPhoto]) -> ShardEntry:
    """Writes the next generation of a shard: without the photos ``removed``, and with those ``added`` at the end.

    Args:
        added: in ascending order of their numbers, which are above those of the shard.

    Raises:
        SearchIndexError: the shard is damaged, dimensions differ, or no feature would be left.
    """
    shard = Shard.open(root, entry.name)
    stays = np.array([name not in removed for name in shard.index.names], bool)
    numbers = np.concatenate([shard.numbers[stays], np.array([photo.number for photo in added], np.int64)])
    shard.index.change(removed=removed, added=[(photo.name, photo.features) for photo in added])
    shard.index.save(root / entry.following.folder)
    return written(root, entry.following, shard.index, numbers)


def written(root: Path, entry: ShardEntry, index: Index, numbers: Int[np.ndarray, " p"]) -> ShardEntry:
    """The full entry of a shard whose folder is complete; writes the numbers of its photos beside it."""
    data = io.BytesIO()
    np.save(data, numbers, allow_pickle=False)
    atomic.write_bytes(root / entry.numbers_file, data.getbuffer())
    return dataclasses.replace(
        entry,
        photos=len(index),
        features=index.feature_count,
        index=manifest.file_entry(root / entry.folder / manifest.NAME),
        numbers=manifest.file_entry(root / entry.numbers_file),
    )
