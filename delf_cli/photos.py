"""The photos that names on the command line mean, and what is said about names that mean none."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from delf_cli.report import Report
from delf_jax.errors import DelfError, ImageError

if TYPE_CHECKING:
    import delf_jax.photos.find


class NoPhotos(DelfError):
    """Nothing was named, or nothing that was named holds a photo."""


def require_names(names: Sequence[str]) -> None:
    """Raises NoPhotos unless photos were named."""
    if not names:
        raise NoPhotos("no photos were named: give files, folders, globs or addresses (see --help)")


def exist(names: Sequence[str], report: Report) -> bool:
    """Whether the names mean any photo at all; where they mean none, the failed names are reported.

    Raises:
        NoPhotos: there is none, and no failed name says why.
    """
    from delf_jax.photos.find import PhotoFile, find_photos

    require_names(names)
    errors = []
    for photo in find_photos(names):
        if isinstance(photo, PhotoFile):
            return True
        errors.append(photo)
    _report(errors, names, report, "image")
    return False


def find(names: Sequence[str], report: Report, *, kind: Literal["image", "query"] = "image") -> list[str]:
    """Paths of all photos that the names mean; a name that means none is reported as failed.

    Raises:
        NoPhotos: there is none, and no failed name says why.
    """
    return [photo.path for photo in find_files(names, report, kind=kind)]


def find_files(
    names: Sequence[str], report: Report, *, kind: Literal["image", "query"] = "image"
) -> "list[delf_jax.photos.find.PhotoFile]":
    """The same with each file's size and time."""
    require_names(names)
    photos, errors = look(names)
    if errors or not photos:
        _report(errors, names, report, kind)
    return photos


def look(names: Sequence[str]) -> "tuple[list[delf_jax.photos.find.PhotoFile], list[ImageError]]":
    """All photos that the names mean, and the errors of names that mean none."""
    from delf_jax.photos.find import PhotoFile, find_photos

    photos: list[PhotoFile] = []
    errors: list[ImageError] = []
    for photo in find_photos(names):
        if isinstance(photo, PhotoFile):
            photos.append(photo)
        else:
            errors.append(photo)
    return photos, errors


def _report(
    errors: Sequence[ImageError], names: Sequence[str], report: Report, kind: Literal["image", "query"]
) -> None:
    for error in errors:
        report.failure(kind, error.source, error.reason)
    if not errors:
        raise NoPhotos(f"{', '.join(names[:3])}: no photos there; name photos, or folders that hold some")
