"""Names on the command line become photos: each once, in a fixed order, nothing swallowed."""

import os
from collections import Counter
from pathlib import Path

import fsspec
import pytest

from delf_jax.errors import ImageError
from delf_jax.photos import names as photo_names
from delf_jax.photos.find import PhotoFile, find_photos


def touch(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def names(*roots: str | Path, under: Path) -> list[str]:
    found = list(find_photos(roots))
    assert all(isinstance(photo, PhotoFile) for photo in found), found
    return [os.path.relpath(photo.path, under) for photo in found if isinstance(photo, PhotoFile)]


def test_folders_are_searched_in_depth_and_in_order(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/1.png", "a.jpeg", "notes.txt", ".hidden/3.jpg", "b/._1.png", "straße/é 日本.webp"):
        touch(tmp_path / name)
    assert names(tmp_path, under=tmp_path) == ["a.jpeg", "b/1.png", "b/2.JPG", "straße/é 日本.webp"]


def test_several_roots_give_each_path_once(tmp_path: Path) -> None:
    photo = touch(tmp_path / "a" / "1.jpg")
    touch(tmp_path / "b" / "2.jpg")
    assert names(photo, tmp_path / "a", tmp_path, f"file://{photo}", under=tmp_path) == ["a/1.jpg", "b/2.jpg"]


def test_a_given_file_counts_whatever_its_name(tmp_path: Path) -> None:
    assert names(touch(tmp_path / "photo[1]"), under=tmp_path) == ["photo[1]"]


def test_globs(tmp_path: Path) -> None:
    for name in ("x/1.jpg", "x/2.png", "x/y/3.jpg", "x/4.txt"):
        touch(tmp_path / name)
    assert names(tmp_path / "x" / "*.jpg", under=tmp_path) == ["x/1.jpg"]
    assert names(tmp_path / "**" / "*.jpg", under=tmp_path) == ["x/1.jpg", "x/y/3.jpg"]
    assert names(tmp_path / "x" / "[12].*", under=tmp_path) == ["x/1.jpg", "x/2.png"]
    (error,) = find_photos([tmp_path / "*.gif"])
    assert isinstance(error, ImageError)
    assert "matches no photo" in error.reason


def test_symlink_loops_end_and_real_names_win(tmp_path: Path) -> None:
    touch(tmp_path / "real" / "1.jpg")
    (tmp_path / "a_link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "up").symlink_to(tmp_path)
    (tmp_path / "real" / "self").symlink_to("self")
    (tmp_path / "photo.jpg").symlink_to(tmp_path / "real" / "1.jpg")
    assert names(tmp_path, under=tmp_path) == ["photo.jpg", "real/1.jpg"]


def test_a_linked_folder_outside_is_followed(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere" / "1.jpg")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "root", under=tmp_path) == ["root/link/1.jpg"]
    touch(tmp_path / "later" / "1.jpg")
    (tmp_path / "root" / "link").unlink()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "later")
    found = names(tmp_path / "root" / "link", tmp_path / "elsewhere", under=tmp_path)
    assert found == ["root/link/1.jpg", "elsewhere/1.jpg"]


def test_no_pattern_gives_a_file_twice(tmp_path: Path) -> None:
    album = touch(tmp_path / "lp" / "album" / "1.jpg").parent
    for number in range(12):  # each would double the ways to the photo
        (album / f"up{number}").symlink_to("..")
    (tmp_path / "lp" / "a").symlink_to("album")
    for pattern in ("lp/**", "lp/**/*.jpg", "**/album/**/1.jpg", "lp/**/**/*", "lp/*/*.jpg", "lp/a*"):
        assert names(tmp_path / pattern, under=tmp_path) == ["lp/album/1.jpg"], pattern
    assert names(album / "up3" / "a" / "1.jpg", album / "1.jpg", under=tmp_path) == ["lp/album/up3/a/1.jpg"]


def test_stars_pass_over_what_is_hidden_and_find_what_lies_above_and_deep(tmp_path: Path) -> None:
    for name in ("1.jpg", "x/2.jpg", "x/y/3.jpg", "x/.z/4.jpg"):
        touch(tmp_path / name)
    assert names(tmp_path / "**" / "*.jpg", under=tmp_path) == ["1.jpg", "x/2.jpg", "x/y/3.jpg"]
    assert names(tmp_path / "**" / "y" / "*", under=tmp_path) == ["x/y/3.jpg"]
    assert names(tmp_path / "**" / "*.*", under=tmp_path) == ["1.jpg", "x/2.jpg", "x/y/3.jpg"]


@pytest.mark.parametrize("name", ["", "file://"])
def test_an_empty_name_is_no_folder(name: str) -> None:
    (error,) = find_photos([name])
    assert str(error) == "'': the name is empty; give a file, folder, glob or address"


@pytest.mark.parametrize("heif", [False, True])
def test_photos_that_are_not_read_are_counted(heif: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_names, "reads_heif", lambda: heif)
    for name in ("1.jpg", "2.MPO", "3.heic", "x/4.HEIF", "x/5.jxl", "x/6.DNG", "x/7.dng", "x/.8.dng", "notes.txt"):
        touch(tmp_path / name)
    for asked in ([tmp_path], [tmp_path / "**" / "*"], [tmp_path, tmp_path / "x" / "*.dng"]):
        left_out: Counter[str] = Counter()
        found = [
            Path(photo.path).name for photo in find_photos(asked, left_out=left_out) if isinstance(photo, PhotoFile)
        ]
        assert sorted(found) == (["1.jpg", "2.MPO", "3.heic", "4.HEIF"] if heif else ["1.jpg", "2.MPO"])
        assert left_out == {".jxl": 1, ".dng": 2} | ({} if heif else {".heic": 1, ".heif": 1})
    (error,) = find_photos([tmp_path / "x" / "*.dng"])
    assert str(error).endswith("matches no photo; 1 .dng file was left out; convert it to JPEG")
    assert names(tmp_path / "x" / "6.DNG", under=tmp_path) == ["x/6.DNG"]  # named, so it is tried


def test_what_is_left_out_is_told_with_its_remedy() -> None:
    remedy = "pip install 'delf-jax[heif]' reads HEIC"
    assert photo_names.left_out_words({".heic": 1}) == f"1 .heic file was left out; {remedy}"
    assert (
        photo_names.left_out_words({".heic": 2, ".dng": 1, ".jxl": 3})
        == f"1 .dng, 2 .heic and 3 .jxl files were left out; {remedy}; convert the others to JPEG"
    )


def test_what_cannot_be_used_is_reported(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    found = list(find_photos([tmp_path, tmp_path / "missing", "bad\0name"]))
    assert all(isinstance(error, ImageError) for error in found)
    text = [str(error) for error in found]
    assert "gone.jpg: is a link to nothing" in text[0]
    assert "loop.jpg: cannot be examined" in text[1]
    assert "missing: there is no such file or folder" in text[2]
    assert "cannot be examined" in text[3]


def test_an_unreadable_folder_is_reported_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a" / "1.jpg")
    touch(tmp_path / "b" / "2.jpg")
    scandir = os.scandir

    def guarded(path: str) -> object:  # root may read everything, so permissions alone would not show it
        if path.endswith("/a"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    error, photo = find_photos([tmp_path])
    assert isinstance(error, ImageError)
    assert "cannot be listed (Permission denied)" in error.reason
    assert isinstance(photo, PhotoFile)


def test_a_name_that_is_not_utf8_is_reported(tmp_path: Path) -> None:
    try:
        with open(os.path.join(os.fsencode(tmp_path), b"\xff.jpg"), "wb") as file:
            file.write(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (error,) = find_photos([tmp_path])
    assert isinstance(error, ImageError)
    assert str(error).endswith("\\xff.jpg: its name is not valid UTF-8; rename it")


def test_addresses() -> None:
    memory = fsspec.filesystem("memory")
    for name in ("/found/b/2.jpg", "/found/1.png", "/found/notes.txt"):
        memory.pipe_file(name, b"abc")
    found = list(find_photos(["memory://found", "memory://found/*.png", "memory://found/none.jpg", "nope://x"]))
    photos = [photo for photo in found if isinstance(photo, PhotoFile)]
    assert [photo.path for photo in photos] == ["memory:///found/1.png", "memory:///found/b/2.jpg"]
    assert photos[0].size == 3
    assert photos[0].mtime_ns > 1_600_000_000 * 10**9
    assert "there is no such file" in str(found[2])
    assert "nope://x: cannot be listed (Protocol not known: nope)" in str(found[3])
    memory.pipe_file("/found/b/3.dng", b"abc")
    left_out: Counter[str] = Counter()
    list(find_photos(["memory://found", "memory://found/b/*"], left_out=left_out))
    assert left_out == {".dng": 1}
