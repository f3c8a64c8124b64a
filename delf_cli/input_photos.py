"""Finds the photos that the command line names, and reports names at which there is no photo."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from delf_cli.report import Report
from delf_jax.errors import DelfError, ImageError
from delf_jax.photos.names import left_out_words

if TYPE_CHECKING:
    import delf_jax.photos.find


class NoPhotos(DelfError):
    """No photo was named, or there is none at the given places."""


def require_names(names: Sequence[str]) -> None:
    """Raises NoPhotos if no name was given."""
    if not names:
        raise NoPhotos("no photos were given: name files, folders, globs or addresses (see --help)")


def any_exist(names: Sequence[str], report: Report) -> bool:
    """Whether there is any photo at these names. If there is none, reports the names that failed.

    Raises:
        NoPhotos: there is no photo, and no name failed.
    """
    from delf_jax.photos.find import PhotoFile, find_photos

    require_names(names)
    errors = []
    left_out: Counter[str] = Counter()
    for photo in find_photos(names, left_out=left_out):
        if isinstance(photo, PhotoFile):
            return True
        errors.append(photo)
    _report(errors, left_out, names, report, "image")
    return False


def all_readable(paths: Sequence[str], report: Report) -> bool:
    """Whether each path is a photo that can be read; reports those that are not. For a few photos, before slow work."""
    from delf_jax.photos.load import load_photo

    failed = report.failed
    for path in paths:
        try:
            load_photo(path, max_side=None)
        except ImageError as error:
            report.failure("image", error.source, error.reason)
    return report.failed == failed


def find_paths(names: Sequence[str], report: Report, *, kind: Literal["image", "query"] = "image") -> list[str]:
    """Paths of all photos at these names. Reports the names that failed.

    Raises:
        NoPhotos: there is no photo, and no name failed.
    """
    return [photo.path for photo in find_files(names, report, kind=kind)]


def find_files(
    names: Sequence[str], report: Report, *, kind: Literal["image", "query"] = "image"
) -> "list[delf_jax.photos.find.PhotoFile]":
    """As ``find_paths``, with the size and modification time of each file."""
    require_names(names)
    left_out: Counter[str] = Counter()
    photos, errors = find_with_errors(names, left_out=left_out)
    if errors or not photos:
        _report(errors, left_out, names, report, kind)
    elif left_out:
        report.note(left_out_words(left_out))
    return photos


def find_with_errors(
    names: Sequence[str], *, left_out: Counter[str] | None = None
) -> "tuple[list[delf_jax.photos.find.PhotoFile], list[ImageError]]":
    """All photos at these names, and the errors of the names that failed. Counts what is left out, by suffix."""
    from delf_jax.photos.find import PhotoFile, find_photos

    photos: list[PhotoFile] = []
    errors: list[ImageError] = []
    for photo in find_photos(names, left_out=left_out):
        if isinstance(photo, PhotoFile):
            photos.append(photo)
        else:
            errors.append(photo)
    return photos, errors


def _report(
    errors: Sequence[ImageError],
    left_out: Counter[str],
    names: Sequence[str],
    report: Report,
    kind: Literal["image", "query"],
) -> None:
    for error in errors:
        report.failure(kind, error.source, error.reason)
    remedy = left_out_words(left_out) if left_out else "name photos, or folders with photos"
    if not errors:
        raise NoPhotos(f"{', '.join(names[:3])}: there are no photos; {remedy}")
    if left_out:
        report.note(remedy)
