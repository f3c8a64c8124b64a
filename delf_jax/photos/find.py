"""``find_photos``: the photos that files, folders, globs and fsspec addresses on a command line stand for."""

import collections
import datetime
import functools
import glob
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import fsspec

from delf_jax.errors import ImageError, one_line, reason_of
from delf_jax.photos import tar_and_parquet
from delf_jax.photos.key_set import KeySet
from delf_jax.photos.names import is_photo_name, left_out_words, path_key, unread_suffix


class PhotoFile(NamedTuple):
    """A photo's name, and what shows without reading the file whether it has changed.

    Attributes:
        path: absolute path, or fsspec address.
        size: bytes.
        mtime_ns: time of the last change in nanoseconds since 1970; 0 if the file system does not know it.
    """

    path: str
    size: int
    mtime_ns: int


class _Unread(NamedTuple):
    """A file in a folder that is a photo, but of a kind that is not read."""

    path: str


_Found = PhotoFile | ImageError | _Unread


def find_photos(
    names: Iterable[str | os.PathLike[str]], *, left_out: Counter[str] | None = None
) -> Iterator[PhotoFile | ImageError]:
    """Every photo that ``names`` stand for, each path once, in a fixed order; an ImageError for each name without any.

    A file that is named is always taken. A shard (.tar, .parquet) stands for the photos in it, see ``tar_and_parquet``.
    Folders are searched with all their subfolders for files with a photo's extension; hidden entries are left out.
    Globs match photos, folders and shards. Links are followed after the real folders; no folder is entered twice.

    Args:
        names: paths, globs (``*``, ``?``, ``[]``, ``**``) or fsspec addresses of either. ``SHARD.parquet::COLUMN``
            names the column of photos.
        left_out: if given, counts the photos of kinds that are not read, by suffix, as they are passed.
    """
    _real_folder.cache_clear()  # links may lead elsewhere by now
    seen = KeySet()
    folders: set[tuple[int, int]] = set()
    for name in names:
        name = os.fspath(name)
        name, column = tar_and_parquet.split_column(name)
        if not name.removeprefix("file://"):
            yield ImageError("''", "the name is empty; give a file, folder, glob or address")
            continue
        if "://" in name and not name.startswith("file://"):
            found = _guarded(name, _remote(name))
        else:
            found = _local(os.path.abspath(name.removeprefix("file://")), folders)
        for photo in found:
            # Millions of names would fill the memory; their 8-byte digests do not.
            if isinstance(photo, ImageError):
                yield photo
            elif seen.add(path_key(_real_name(photo.path) + (column or ""))):
                if not isinstance(photo, _Unread):
                    yield from _with_members(photo, column)
                elif left_out is not None:
                    left_out[unread_suffix(photo.path) or ""] += 1


def _real_name(path: str) -> str:
    """The path without links to folders; a link to a photo is a photo of its own."""
    if "://" in path:
        return path
    folder, name = os.path.split(path)
    return os.path.join(_real_folder(folder), name)


@functools.lru_cache(maxsize=1024)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)


def _with_members(photo: PhotoFile, column: str | None) -> Iterator[PhotoFile | ImageError]:
    """A photo; or the photos in a shard."""
    if not tar_and_parquet.is_shard(photo.path):
        yield photo
        return
    for member in tar_and_parquet.members(photo.path, size=photo.size, mtime_ns=photo.mtime_ns, column=column):
        yield member if isinstance(member, ImageError) else PhotoFile(*member)


def _local(name: str, folders: set[tuple[int, int]]) -> Iterator[_Found]:
    if os.path.lexists(name) or not glob.has_magic(name):
        yield from _given(name, folders)
        return
    unread: Counter[str] = Counter()
    matches = []
    for match in _glob(name):
        if is_photo_name(match) or tar_and_parquet.is_shard(match):
            matches.append((_real_name(match) != match, match))
        elif os.path.isdir(match):
            matches.append((os.path.realpath(match) != match, match))
        elif suffix := unread_suffix(match):
            unread[suffix] += 1
            yield _Unread(match)
    # Names without links come first, so that a photo that is reached in several ways gets its real name.
    for _, match in sorted(matches):
        yield from _given(match, folders)
    if not matches:
        yield ImageError(name, f"matches no photo; {left_out_words(unread) if unread else 'check the pattern'}")


def _glob(pattern: str) -> Iterator[str]:
    """As ``glob.iglob``, but ``**`` enters no folder twice, whatever links there are."""
    parts = pattern.split(os.sep)
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    place = parts.index("**")
    rest = os.sep.join(parts[place + 1 :]) or "*"
    for top in glob.iglob(os.sep.join(parts[:place]) or os.sep):
        for folder in _folders_below(top):
            yield from _glob(os.path.join(glob.escape(folder), rest))


def _folders_below(top: str) -> Iterator[str]:
    """The folder and all folders in it, each once; hidden ones are left out, and links are followed last."""
    entered: set[tuple[int, int]] = set()
    waiting = collections.deque([top])
    while waiting:
        for folder, inner, _ in os.walk(waiting.popleft()):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in entered:
                inner.clear()
                continue
            entered.add((status.st_dev, status.st_ino))
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            yield folder
            waiting.extend(path for name in inner if os.path.islink(path := os.path.join(folder, name)))


def _given(name: str, folders: set[tuple[int, int]]) -> Iterator[_Found]:
    photo = _look_at(name)
    if photo is not None:
        yield photo
        return
    # Links come last, so that a photo that is reached in both ways gets its real name.
    links: list[str] = []
    yield from _walk(name, folders, links)
    while links:
        yield from _walk(links.pop(0), folders, links)


def _walk(folder: str, entered: set[tuple[int, int]], links: list[str]) -> Iterator[_Found]:
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in entered:
            return
        entered.add((status.st_dev, status.st_ino))
        # Names only: a folder may hold millions of files, and directory entries take several times the memory.
        names: list[str] = []
        is_link: dict[str, bool] = {}
        with os.scandir(folder) as listing:
            for entry in listing:
                if entry.name.startswith("."):
                    continue
                if _is_directory(entry):
                    is_link[entry.name] = entry.is_symlink()
                elif not is_photo_name(entry.name) and not unread_suffix(entry.name):
                    continue
                names.append(entry.name)
        names.sort()
    except OSError as error:
        yield ImageError(
            folder, f"the folder cannot be listed ({reason_of(error)}); change its permissions or leave it out"
        )
        return
    for name in names:
        path = os.path.join(folder, name)
        if name not in is_link:
            photo = _Unread(path) if unread_suffix(name) else _look_at(path)
            if photo is not None:
                yield photo
        elif is_link[name]:
            links.append(path)
        else:
            yield from _walk(path, entered, links)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _look_at(path: str) -> PhotoFile | ImageError | None:
    """The file at ``path``; None if it is a folder."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        if os.path.islink(path):
            return ImageError(path, "is a link to nothing; correct or remove it")
        return ImageError(path, "there is no such file or folder; check the path")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return ImageError(path, f"cannot be examined ({reason}); check the path and its permissions")
    if stat.S_ISDIR(status.st_mode):
        return None
    try:
        path.encode()
    except UnicodeEncodeError:
        readable = os.fsencode(path).decode(errors="backslashreplace")
        return ImageError(readable, "its name is not valid UTF-8; rename it")
    return PhotoFile(path, status.st_size, status.st_mtime_ns)


def _guarded(name: str, photos: Iterator[_Found]) -> Iterator[_Found]:
    try:
        yield from photos
    except ImportError as error:
        yield ImageError(name, f"its protocol needs a package that is not installed: {error}")
    except Exception as error:
        reason = one_line(error)
        yield ImageError(name, f"cannot be listed ({reason}); check the address and its credentials")


def _remote(name: str) -> Iterator[_Found]:
    filesystem, path = fsspec.core.url_to_fs(name)
    if glob.has_magic(path):
        matches = filesystem.glob(path, detail=True)
        for match in sorted(matches):
            if (is_photo_name(match) or tar_and_parquet.is_shard(match)) and matches[match]["type"] == "file":
                yield _remote_photo(filesystem, matches[match])
            elif unread_suffix(match):
                yield _Unread(filesystem.unstrip_protocol(match))
        if not matches:
            yield ImageError(name, "matches no photo; check the pattern")
    elif filesystem.isdir(path):
        for _, _, files in filesystem.walk(path, detail=True):
            for file in sorted(files):
                if is_photo_name(file):
                    yield _remote_photo(filesystem, files[file])
                elif unread_suffix(file):
                    yield _Unread(filesystem.unstrip_protocol(files[file]["name"]))
    elif filesystem.exists(path):
        yield _remote_photo(filesystem, filesystem.info(path))
    else:
        yield ImageError(name, "there is no such file or folder; check the address")


def _remote_photo(filesystem: Any, info: dict[str, Any]) -> PhotoFile:
    changed = next(
        (info[k] for k in ("mtime", "LastModified", "last_modified", "updated", "created") if info.get(k)), 0
    )
    if isinstance(changed, str):
        changed = datetime.datetime.fromisoformat(changed)
    if isinstance(changed, datetime.datetime):
        changed = changed.timestamp()
    return PhotoFile(filesystem.unstrip_protocol(info["name"]), int(info["size"] or 0), int(changed * 1e9))
