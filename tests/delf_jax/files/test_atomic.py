"""Files and folders appear whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from delf_jax.files import atomic


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "größe.bin"
    atomic.write_bytes(path, b"old")
    atomic.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == [path.name]


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic.write_bytes(path, b"old")

    def half() -> None:
        with atomic.replacing(path) as aside:
            aside.write_bytes(b"half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    atomic.write_bytes(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        atomic.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_long_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    atomic.write_bytes(path, b"x")
    assert path.read_bytes() == b"x"


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "index"
    for generation in ("one", "two"):
        with atomic.replacing_folder(path) as aside:
            (aside / "inner").mkdir()
            (aside / "inner" / generation).write_text(generation)
    assert [p.name for p in (path / "inner").iterdir()] == ["two"]
    assert os.listdir(tmp_path) == ["index"]


def test_a_failed_folder_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "index"
    with atomic.replacing_folder(path) as aside:
        (aside / "file").write_text("old")

    def half() -> None:
        with atomic.replacing_folder(path) as aside:
            (aside / "file").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert (path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["index"]


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_is_created_once_and_whole(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    atomic.create_bytes(tmp_path / "1.json", b"first")
    with pytest.raises(FileExistsError):
        atomic.create_bytes(tmp_path / "1.json", b"second")
    assert (tmp_path / "1.json").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["1.json"]
