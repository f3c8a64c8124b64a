"""Names of photos in the files of other programs."""

import pytest

from delf_jax import FileFormatError
from delf_jax.interchange.pairs import relative_names


def test_names_are_relative_to_the_folder_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert relative_names(["s3://bucket/a/1.jpg", "s3://bucket/2.jpg"]) == {
        "s3://bucket/a/1.jpg": "a/1.jpg",
        "s3://bucket/2.jpg": "2.jpg",
    }
    # Only on Windows does a backslash part folders.
    assert relative_names(["/p/a\\b.jpg", "/p/a/b.jpg"]) == {"/p/a\\b.jpg": "a\\b.jpg", "/p/a/b.jpg": "a/b.jpg"}


def test_photos_without_a_common_folder_are_named() -> None:
    paths = ["/photos/1.jpg", "/photos/2.jpg", "s3://bucket/3.jpg"]
    with pytest.raises(FileFormatError) as refused:
        relative_names(paths)
    assert str(refused.value) == (
        "/photos/1.jpg and s3://bucket/3.jpg: no folder holds both; "
        "extract the photos of each place into a store of their own"
    )
    with pytest.raises(FileFormatError, match=r"s3://bucket/3.jpg: is not in /photos; give the folder"):
        relative_names(paths, root="/photos")
