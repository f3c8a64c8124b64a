"""Making a damaged store usable again: damaged parts are left out, a lost manifest is made anew from the parts."""

import collections
import contextlib
import dataclasses
import hashlib
import io
import os
from typing import NamedTuple

from delf_jax.errors import StoreError
from delf_jax.files.folder import Folder
from delf_jax.files.lease import Lease
from delf_jax.store import parts
from delf_jax.store.manifest import Manifest, Part, number_and_digest
from delf_jax.store.manifest_files import LostManifest, ManifestFiles
from delf_jax.store.photo_table import KnownPhoto, PhotoTable
from delf_jax.store.reader import RUNS, Damage, FeatureStore, read


def repair(path: str | os.PathLike[str]) -> list[Damage]:
    """Drops the damaged parts of a store, so that the rest can be used; the next extraction does their photos again.

    A manifest that is missing or damaged is made anew from the parts, as long as they are what their names say.

    Returns:
        What was damaged. A damaged head file is named but stays.

    Raises:
        StoreError: when there is no store, its manifest is lost and the parts do not say what made them, or a writer is
            at work in it.
    """
    with contextlib.suppress(LostManifest):
        FeatureStore.open(path)
    folder = Folder(path)
    lease = Lease(folder)

    def write(name: str, data: bytes) -> None:
        lease.check()
        folder.write(name, data)

    try:
        files = ManifestFiles(folder, write)
        damages: list[Damage] = []
        try:
            files.read()
        except LostManifest as lost:
            made, damages = _made_anew(folder, files.whole)
            files.write_whole(made)
            damages = [Damage(lost.name, f"it is {lost.state}"), *damages]
        found = FeatureStore.open(path).check()
        dropped = {damage.name for damage in found}
        for name in dropped:
            if name.startswith(f"{RUNS}/"):
                folder.remove(name)
        manifest = files.read()
        if manifest is not None and any(part.name in dropped for part in manifest.parts):
            kept = tuple(part for part in manifest.parts if part.name not in dropped)
            files.write_whole(dataclasses.replace(manifest, parts=kept))
            for part in manifest.parts:
                if part.name in dropped:
                    folder.remove(f"parts/{part.name}")
        return damages + found
    finally:
        lease.release()


def _made_anew(folder: Folder, older: Manifest | None) -> tuple[Manifest, list[Damage]]:
    """The manifest that the parts of a store had, and the parts that cannot be in it.

    Of a photo that several parts have, the row of the last one counts. A part that was finished but not listed yet
    counts from now on.

    Args:
        older: an earlier state of the same store, where one is known.
    """
    origins = set() if older is None else {dataclasses.replace(older, parts=(), next_part=0)}
    models = {(origin.fingerprint, origin.dimension) for origin in origins}
    next_part = 0 if older is None else older.next_part
    listed: list[Part] = []
    superseded: collections.defaultdict[int, set[int]] = collections.defaultdict(set)
    known = PhotoTable()
    numbered = {name: numbers for name in folder.names("parts") if (numbers := number_and_digest(name))}
    once = () if older is None else older.parts
    damages = [Damage(part.name, "it is missing") for part in once if part.name not in numbered]
    for name, (number, digest) in sorted(numbered.items(), key=lambda item: item[1]):
        next_part = max(next_part, number + 1)
        found = _examined(name, digest, read(folder, f"parts/{name}"))
        if isinstance(found, Damage):
            damages.append(found)
            continue
        models |= found.models
        origins |= found.origins
        for row, path in enumerate(found.paths):
            before = known.get(path)
            if before is not None:
                superseded[before.part].add(before.row)
            known.add(path, KnownPhoto(0, 0, 0, len(listed), row))
        listed.append(found.part)
    otherwise = f"put back a copy of the manifest or extract into another folder ({len(listed)} whole parts)"
    if not origins:
        raise StoreError(
            f"{folder.address}: its manifest is lost, and no part says what settings made it, as older ones do not; "
            f"{otherwise}"
        )
    if len(origins) > 1 or len(models) > 1:
        raise StoreError(f"{folder.address}: its manifest is lost, and other settings made other parts; {otherwise}")
    counting = tuple(part.without(superseded[position]) for position, part in enumerate(listed))
    return dataclasses.replace(origins.pop(), parts=counting, next_part=next_part), damages


class _Examined(NamedTuple):
    """What a whole part says.

    Attributes:
        part: as the manifest lists it.
        paths: of its photos, by row.
        models: fingerprint and dimension of the one that made it.
        origins: the manifest, without parts, of the store it was made for; none where the part is too old to say.
    """

    part: Part
    paths: list[str]
    models: set[tuple[str, int]]
    origins: set[Manifest]


def _examined(name: str, digest: str, data: bytes) -> _Examined | Damage:
    """What a part of this name and content says, or why it cannot be used."""
    sha256 = hashlib.sha256(data).hexdigest()
    if not sha256.startswith(digest):
        return Damage(name, "its checksum is not the one in its name")
    try:
        origin = parts.origin(data)
        paths = parts.identities(io.BytesIO(data))["path"]
        models = {(origin["fingerprint"], origin["dimension"])}
        says = "settings" in origin
        origins = {Manifest.from_json(origin | {"next_part": 0, "parts": []})} if says else set()
    except parts.UNREADABLE as error:
        return Damage(name, f"it is not readable: {' '.join(str(error).split())}")
    return _Examined(Part(name, len(paths), len(data), sha256), paths, models, origins)
