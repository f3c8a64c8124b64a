"""Repairs a damaged store: damaged parts are left out, and a lost manifest is made again from the parts."""

import collections
import contextlib
import dataclasses
import hashlib
import io
import os
from typing import NamedTuple

from delf_jax.errors import StoreError, one_line
from delf_jax.files.folder import Folder
from delf_jax.files.lease import Lease
from delf_jax.store import parts
from delf_jax.store.commit_log import CommitLog
from delf_jax.store.manifest import LostManifest, Manifest, Part, number_and_digest
from delf_jax.store.photo_table import KnownPhoto, PhotoTable
from delf_jax.store.reader import RUNS, Damage, FeatureStore, read


def repair(path: str | os.PathLike[str]) -> list[Damage]:
    """Removes what is damaged in a store, so that the rest can be used. The next extraction computes it again.

    If a commit is missing or damaged, the manifest is made again from the parts that are what their names say.

    Returns:
        What was damaged. A damaged head file is named but stays.

    Raises:
        StoreError: there is no store; a writer holds it; or its manifest is lost and the parts do not say what made
            them.
    """
    with contextlib.suppress(LostManifest):
        FeatureStore.open(path)
    folder = Folder(path)
    lease = Lease(folder)
    try:
        log = CommitLog(folder)
        try:
            manifest = earlier = log.read()
            damages = _unlisted(folder, manifest) if manifest else []
        except LostManifest as lost:
            earlier, damages = lost.earlier, [Damage(lost.name, f"it is {lost.state}")]
        if damages:
            manifest, more = _from_parts(folder, earlier)
            log.commit_snapshot(manifest)
            damages += more
        found = FeatureStore.open(path).check()
        damaged = {damage.name for damage in found}
        for name in damaged:
            if name.startswith(f"{RUNS}/"):
                folder.remove(name)
        if manifest is not None and any(part.name in damaged for part in manifest.parts):
            whole = tuple(part for part in manifest.parts if part.name not in damaged)
            log.commit_snapshot(dataclasses.replace(manifest, parts=whole))
            for part in manifest.parts:
                if part.name in damaged:
                    folder.remove(f"parts/{part.name}")
        return damages + found
    finally:
        lease.release()


def _unlisted(folder: Folder, manifest: Manifest) -> list[Damage]:
    """Parts that were written after the newest commit: their writer was killed, or their commit is missing."""
    found = [(name, number_and_digest(name)) for name in folder.names("parts")]
    return [Damage(name, "no commit lists it") for name, n in found if n and n[0] >= manifest.next_part]


def _from_parts(folder: Folder, earlier: Manifest | None) -> tuple[Manifest, list[Damage]]:
    """The manifest of the parts that are there, and the parts that are missing or damaged.

    If several parts have a photo, the row of the last one counts. A part that no commit listed counts too.

    Args:
        folder: of the store.
        earlier: an earlier manifest of the store, if one is known.
    """
    origins = set() if earlier is None else {dataclasses.replace(earlier, parts=(), next_part=0)}
    models = {(origin.fingerprint, origin.dimension) for origin in origins}
    next_part = 0 if earlier is None else earlier.next_part
    listed: list[Part] = []
    superseded: collections.defaultdict[int, set[int]] = collections.defaultdict(set)
    known = PhotoTable()
    numbered = {name: numbers for name in folder.names("parts") if (numbers := number_and_digest(name))}
    expected = () if earlier is None else earlier.parts
    damages = [Damage(part.name, "it is missing") for part in expected if part.name not in numbered]
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
    remedy = f"put back a copy of it or extract into another folder ({len(listed)} whole parts)"
    if not origins:
        raise StoreError(
            f"{folder.address}: its manifest is lost, and no part says which settings made it, as older parts do not; "
            f"{remedy}"
        )
    if len(origins) > 1 or len(models) > 1:
        raise StoreError(
            f"{folder.address}: its manifest is lost, and its parts were made with different settings; {remedy}"
        )
    counting = tuple(part.without(superseded[position]) for position, part in enumerate(listed))
    return dataclasses.replace(origins.pop(), parts=counting, next_part=next_part), damages


class _Examined(NamedTuple):
    """What a whole part says.

    Attributes:
        part: as the manifest lists it.
        paths: of its photos, one a row.
        models: fingerprint and dimension of the model that made it.
        origins: the manifest, without parts, of the store it was made for; empty if the part is too old to have it.
    """

    part: Part
    paths: list[str]
    models: set[tuple[str, int]]
    origins: set[Manifest]


def _examined(name: str, digest: str, data: bytes) -> _Examined | Damage:
    """What a part of this name and content says, or what is damaged in it."""
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
        return Damage(name, f"it is not readable: {one_line(error)}")
    return _Examined(Part(name, len(paths), len(data), sha256), paths, models, origins)
