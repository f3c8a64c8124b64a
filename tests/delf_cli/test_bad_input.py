"""Bad input: each kind gets one line that says what to do, the right exit code, and nothing is lost or half written."""

import dataclasses
import errno
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from delf_cli.encoder_options import EncoderOptions
from delf_cli.options import ExtractionOptions
from delf_jax.extraction.head import Head
from delf_jax.files import atomic
from delf_jax.photos import find as photo_files
from delf_jax.store.reader import FeatureStore
from tests.delf_cli.conftest import Run
from tests.delf_jax.job.stores import photos_in
from tests.tiny_model import write_tiny_model

ROOT = Path(__file__).resolve().parents[2]


def missing(path: Path, photo: Path) -> None:
    pass


def empty(path: Path, photo: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path, photo: Path) -> None:
    path.write_bytes(photo.read_bytes()[:5000])


def not_a_photo(path: Path, photo: Path) -> None:
    path.write_text("Dear diary, today I renamed a text file.\n" * 20)


def bomb(path: Path, photo: Path) -> None:
    """A PNG of 200 bytes that says it has 3.6 billion pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100_000))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


BAD = {
    missing: "there is no such file",
    empty: "the file is empty; fetch it again",
    truncated: "damaged or cut short",
    not_a_photo: "not a photo of a known format; convert it",
    bomb: "above the limit of",
}


@pytest.fixture
def bad_photos(photos: Path, tmp_path: Path) -> dict[str, str]:
    """A photo of each bad kind, and what is said about it."""
    (tmp_path / "bad").mkdir()
    said = {}
    for make, reason in BAD.items():
        path = tmp_path / "bad" / f"{make.__name__}.jpg"
        make(path, photos / "box.jpg")
        said[str(path)] = reason
    return said


def test_bad_photos_among_good_ones(
    run: Run, photos: Path, index: Path, small: tuple[str, ...], bad_photos: dict[str, str], tmp_path: Path
) -> None:
    good = photos / "box.jpg"
    done = run("extract", good, *bad_photos, "--out", tmp_path / "s", *small)
    assert done.code == 1
    assert "1 photos done" in done.out
    lines = done.err.splitlines()
    assert len(lines) == len(bad_photos)
    for path, reason in bad_photos.items():
        (line,) = [line for line in lines if line.startswith(f"{path}: ")]
        assert reason in line
    store = FeatureStore.open(tmp_path / "s")
    assert [photo.path for photo in store] == [str(good)]
    assert {failure[0] for failure in store.failures()} == bad_photos.keys()

    found = run("search", index, *bad_photos, good, "--json")
    assert (found.code, found.err) == (1, "")
    *failed, answered = sorted(found.records, key=lambda record: "error" not in record)
    assert answered["query"] == str(good)
    for record in failed:
        assert bad_photos[record["query"]] in record["error"]
    assert {record["query"] for record in failed} == bad_photos.keys()


def test_bad_photos_alone(
    run: Run, photos: Path, index: Path, small: tuple[str, ...], bad_photos: dict[str, str], tmp_path: Path
) -> None:
    good, bad = photos / "box.jpg", next(path for path in bad_photos if "truncated" in path)
    done = run("extract", *bad_photos, "--out", tmp_path / "nothing", *small, "--json")
    assert (done.code, done.err) == (2, "")
    for record in done.records[:-1]:
        assert bad_photos[record["image"]] in record["error"]
    alone = run("search", index, bad)
    assert (alone.code, alone.out, alone.err.count("\n")) == (2, "", 1)

    matched = run("match", good, bad, *small, "--plot", tmp_path / "m.png")
    assert (matched.code, matched.out, matched.err.count("\n")) == (2, "", 1)
    assert not (tmp_path / "m.png").exists()
    assert run("match", good, bad, *small, "--json").records[0]["image"] == bad

    fitted = run("pca", bad, "--out", tmp_path / "head.safetensors", *small)
    assert (fitted.code, fitted.out, fitted.err.count("\n")) == (2, "", 1)
    assert not (tmp_path / "head.safetensors").exists()


def test_every_name_is_looked_up_before_a_model_is_loaded(
    run: Run, photos: Path, bad_photos: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for options in (ExtractionOptions, EncoderOptions):
        monkeypatch.setattr(options, "load", lambda self, *args, **others: pytest.fail("a model is loaded"))
    good, nothing = photos / "box.jpg", next(path for path in bad_photos if "missing" in path)
    for command in (
        ("match", good, nothing),
        ("match", nothing, good),
        ("pca", nothing, "--out", tmp_path / "head.safetensors"),
        ("fit-localizer", good, "--empty", nothing, "--out", tmp_path / "predictor"),
    ):
        done = run(*command)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert done.err.startswith(f"{nothing}: there is no such file")


def test_photo_of_100_megapixels_is_a_photo(run: Run, photos: Path, small: tuple[str, ...], tmp_path: Path) -> None:
    with Image.open(photos / "box.jpg") as photo:
        photo.convert("1").resize((10_000, 10_000)).save(tmp_path / "large.png")
    done = run("extract", tmp_path / "large.png", "--out", tmp_path / "s", *small, "--json")
    assert (done.code, done.records[0]["done"]) == (0, 1)
    (stored,) = FeatureStore.open(tmp_path / "s")
    assert stored.features.image_size == (10_000, 10_000)
    assert len(stored.features) > 10


def test_unreadable_folder_is_reported_and_the_rest_is_done(
    run: Run, photos: Path, small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(photos, tmp_path / "open")
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def guarded(path: str) -> Any:
        if os.path.basename(path) == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(photo_files.os, "scandir", guarded)
    done = run("extract", tmp_path / "open", tmp_path / "closed", "--out", tmp_path / "s", *small)
    assert done.code == 1
    assert "5 photos done" in done.out
    assert done.err == (
        f"{tmp_path / 'closed'}: the folder cannot be listed (Permission denied); "
        "change its permissions or leave it out\n"
    )
    alone = run("extract", tmp_path / "closed", "--out", tmp_path / "s2", *small)
    assert (alone.code, alone.err.count("\n")) == (2, 1)
    assert not (tmp_path / "s2").exists()


class FullDisk:
    """Lets ``room`` files be written atomically, then none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room, self._sync = room, atomic.sync
        monkeypatch.setattr(atomic, "sync", self.sync)

    def sync(self, path: str | os.PathLike[str]) -> None:
        if os.path.isfile(path):
            if self.room < 1:
                raise OSError(errno.ENOSPC, "No space left on device", os.fspath(path))
            self.room -= 1
        self._sync(path)


@pytest.mark.parametrize("room", [0, 1, 2, 3])
def test_full_disk_while_extracting(
    room: int, run: Run, photos: Path, small: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        FullDisk(patch, room)
        done = run("extract", photos / "box.jpg", "--out", tmp_path / "s", *small)
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert "the disk is full; " in done.err
    assert not list(tmp_path.rglob("*.tmp"))
    again = run("extract", photos / "box.jpg", "--out", tmp_path / "s", *small, "--json")
    assert (again.code, again.records[0]["stored"]) == (0, 1)


def test_full_disk_while_indexing_keeps_the_old_index(
    run: Run, store: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(index, tmp_path / "i")
    with monkeypatch.context() as patch:
        FullDisk(patch, 2)
        done = run("index", store, "--out", tmp_path / "i", "--backend", "exact")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "space" in done.err
    assert run("check", tmp_path / "i").code == 0
    assert os.listdir(tmp_path) == ["i"]


def test_full_disk_while_drawing(
    run: Run, index: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FullDisk(monkeypatch, 0)
    done = run("search", index, photos / "box.jpg", "--out", tmp_path / "found")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "the disk is full; free some space" in done.err
    assert not os.listdir(tmp_path / "found")


@pytest.mark.parametrize("command", ["extract", "search", "pca"])
def test_no_photos_at_all(command: str, run: Run, index: Path, small: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "notes.txt").write_text("nothing to see")
    args = [index, tmp_path / "none"] if command == "search" else [tmp_path / "none", "--out", tmp_path / "x", *small]
    done = run(command, *args)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"delf-jax: {tmp_path / 'none'}: there are no photos; name photos, or folders with photos\n"
    (tmp_path / "none" / "1.dng").touch()
    remedy = "1 .dng file was left out; convert it to JPEG"
    assert run(command, *args).err == f"delf-jax: {tmp_path / 'none'}: there are no photos; {remedy}\n"
    assert not (tmp_path / "x").exists()


def test_store_of_another_model_or_settings_stays_as_it_is(
    run: Run, photos: Path, store: Path, small: tuple[str, ...], tmp_path: Path
) -> None:
    other = write_tiny_model(tmp_path / "other", seed=1)
    before = sorted((p, p.stat().st_mtime_ns) for p in store.rglob("*") if p.is_file() and p.suffix == ".parquet")
    for options in (["--model", other], ["--scorer", "foreground"], ["--max-features", "7"]):
        done = run("extract", photos, "--out", store, *small, *options)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert f"{store}: was made otherwise" in done.err
        assert "or another --out" in done.err
    assert before == sorted((p, p.stat().st_mtime_ns) for p in store.rglob("*") if p.suffix == ".parquet")


def test_index_and_query_of_different_models(run: Run, photos: Path, index: Path, tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path / "other", seed=1)
    done = run("search", index, photos / "box.jpg", "--model", other)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "another model" in done.err


def test_query_without_features_is_an_answer(run: Run, index: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((200, 300, 3), 77, np.uint8)).save(tmp_path / "wall.png")
    found = run("search", index, tmp_path / "wall.png", "--json")
    assert found.code == 0
    (record,) = found.records
    assert (record["accepted"], record["results"]) == (False, [])
    said = run("search", index, tmp_path / "wall.png", "--out", tmp_path / "found")
    assert said.code == 0
    assert "no features" in said.out
    assert os.listdir(tmp_path / "found") == ["wall.jpg"]


@pytest.mark.parametrize("args", [("search", "{x}", "{photo}"), ("index", "{x}", "--out", "{y}"), ("check", "{x}")])
@pytest.mark.parametrize("what", ["nothing", "photos", "damaged"])
def test_not_an_index_and_not_a_store(args: tuple[str, ...], what: str, run: Run, photos: Path, tmp_path: Path) -> None:
    x = tmp_path / "x"
    if what == "photos":
        shutil.copytree(photos, x)
    elif what == "damaged":
        x.mkdir()
        (x / "manifest.json").write_text('{"format": "delf-jax index", ')
    done = run(*(arg.format(x=x, y=tmp_path / "y", photo=photos / "box.jpg") for arg in args))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert str(x) in done.err
    assert not (tmp_path / "y").exists()


def test_index_does_not_take_the_place_of_other_things(run: Run, store: Path, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "s")
    shutil.copytree(photos, tmp_path / "p")
    for victim in ("s", "p"):
        done = run("index", tmp_path / "s", "--out", tmp_path / victim, "--backend", "exact")
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert run("check", tmp_path / "s").code == 0
    assert len(os.listdir(tmp_path / "p")) == 5


def test_missing_model_and_missing_scorer(run: Run, photos: Path, small: tuple[str, ...], tmp_path: Path) -> None:
    done = run("extract", photos, "--out", tmp_path / "s", "--model", "delf-r51")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "delf-r51: no such model" in done.err
    untrained = dataclasses.replace(Head.open(Path(small[1]) / "head.safetensors"), attention=None)
    untrained.save(tmp_path / "head.safetensors")
    done = run("extract", photos, "--out", tmp_path / "s", *small, "--head", tmp_path / "head.safetensors")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "no 'learned' scorer" in done.err
    assert not (tmp_path / "s").exists()


def test_interrupted_extraction_keeps_what_is_done(
    run: Run, photos: Path, small: tuple[str, ...], tmp_path: Path
) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(12):
        shutil.copy(photos / "box.jpg", many / f"{number}.jpg")
    args = ["extract", str(many), "--out", str(tmp_path / "s"), *small]
    # Slow photos and small parts, so that the interruption falls between the first part and the last photo.
    slow = (
        "import sys, time\n"
        "from delf_jax.job import extraction_job as job\n"
        "from delf_jax.photos import batching\n"
        "from delf_cli.main import main\n"
        "load = batching.load_photo\n"
        "batching.load_photo = lambda *args, **options: (time.sleep(0.5), load(*args, **options))[1]\n"
        "run = job.run\n"
        "job.run = lambda *args, options, **more: run(*args, options=options._replace(part_photos=2), **more)\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *args, "--workers", "1"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    limit = time.monotonic() + 120
    while not photos_in(tmp_path / "s") and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert err.startswith("delf-jax: interrupted")
    assert err.count("\n") == 1
    kept = len(FeatureStore.open(tmp_path / "s"))
    assert 2 <= kept < 12
    resumed = run(*args, "--json")
    assert resumed.code == 0
    assert (resumed.records[0]["skipped"], resumed.records[0]["stored"]) == (kept, 12)
    assert len({photo.path for photo in FeatureStore.open(tmp_path / "s")}) == 12
