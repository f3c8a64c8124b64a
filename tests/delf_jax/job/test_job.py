"""The batch job does every photo once, whatever happens on the way."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from delf_jax.errors import DelfError, ImageError, StoreError
from delf_jax.features import LocalFeatures
from delf_jax.files import atomic
from delf_jax.job import JobOptions, extraction_job
from delf_jax.photos.load import load_photo
from delf_jax.settings import ExtractionSettings
from delf_jax.store.reader import FeatureStore
from tests.delf_jax.fake_extractor import FakeExtractor, features_of

REPOSITORY = Path(__file__).parents[3]


def save_photo(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "BMP")  # the same number of bytes whatever the pixels
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed in range(6):
        save_photo(tmp_path / "photos" / f"{seed} é日.bmp", seed)
    return tmp_path / "photos"


def assert_right(store: Path | str, photos: Path) -> None:
    """Exactly one row a photo file, with the features of its pixels as they are now."""
    rows = list(FeatureStore.open(store))
    assert sorted(row.path for row in rows) == sorted(str(path) for path in photos.iterdir() if path.suffix == ".bmp")
    for row in rows:
        photo = load_photo(row.path, max_side=None)
        np.testing.assert_allclose(row.features.descriptors, features_of(photo.pixels, 5).descriptors, atol=1e-3)
        assert (row.size, row.mtime_ns) == (os.stat(row.path).st_size, os.stat(row.path).st_mtime_ns)
        assert row.content_hash == photo.content_hash


@pytest.mark.parametrize("part_photos", [1, 4, 256])
def test_every_photo_once_and_nothing_twice(part_photos: int, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    report = extraction_job.run(
        FakeExtractor(), [photos, photos / "*.bmp"], out, options=JobOptions(part_photos=part_photos)
    )
    assert report == (6, 0, [], 6, {})
    assert_right(out, photos)
    assert [len(part) for part in FeatureStore.open(out).iter_parts()] == {1: [1] * 6, 4: [4, 2], 256: [6]}[part_photos]
    again = FakeExtractor()
    assert extraction_job.run(again, [photos], out) == (0, 6, [], 6, {})
    assert again.asked == []


def test_photos_that_are_not_read_are_told(photos: Path, tmp_path: Path) -> None:
    for name in ("1.dng", "2.DNG", "3.jxl"):
        (photos / name).touch()
    assert extraction_job.run(FakeExtractor(), [photos], tmp_path / "store").left_out == {".dng": 2, ".jxl": 1}
    with pytest.raises(
        DelfError, match=r"no photos: .*matches no photo; 1 \.jxl file was left out; convert it to JPEG"
    ):
        extraction_job.run(FakeExtractor(), [photos / "*.jxl"], tmp_path / "none")


def test_photos_and_store_behind_addresses(photos: Path, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    source, out = f"memory://{tmp_path.name}/photos", f"memory://{tmp_path.name}/store"
    for path in photos.iterdir():
        memory.pipe_file(f"/{tmp_path.name}/photos/{path.name}", path.read_bytes())
    assert extraction_job.run(FakeExtractor(), [source], out).done == 6
    assert extraction_job.run(FakeExtractor(), [source], out).skipped == 6
    assert len(list(FeatureStore.open(out))) == 6


def test_a_changed_photo_is_done_anew(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    extraction_job.run(FakeExtractor(), [photos], out)
    changed = sorted(photos.iterdir())[2]
    save_photo(changed, seed=99)
    extractor = FakeExtractor()
    report = extraction_job.run(extractor, [photos], out)
    assert report[:2] == (1, 5)
    assert extractor.asked == [str(changed)]
    assert_right(out, photos)


def test_a_photo_only_touched_is_left_alone(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    extraction_job.run(FakeExtractor(), [photos], out)
    os.utime(sorted(photos.iterdir())[2], ns=(1, 1))
    assert extraction_job.run(FakeExtractor(), [photos], out)[:2] == (0, 6)


def test_verify_notices_a_change_behind_the_same_size_and_time(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    extraction_job.run(FakeExtractor(), [photos], out)
    changed = sorted(photos.iterdir())[4]
    before = os.stat(changed)
    save_photo(changed, seed=99)
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert extraction_job.run(FakeExtractor(), [photos], out)[:2] == (0, 6)
    extractor = FakeExtractor()
    assert extraction_job.run(extractor, [photos], out, options=JobOptions(verify=True))[:2] == (1, 5)
    assert extractor.asked == [str(changed)]
    assert_right(out, photos)


def test_failures_are_listed_until_they_are_mended(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    broken, empty = photos / "broken.jpg", photos / "empty.png"
    broken.write_bytes(b"not a photo")
    empty.touch()
    report = extraction_job.run(FakeExtractor(), [photos, tmp_path / "missing.jpg"], out)
    assert (report.done, report.stored) == (6, 6)
    reasons = dict(report.failed)
    assert set(reasons) == {str(broken), str(empty), str(tmp_path / "missing.jpg")}
    assert "empty" in reasons[str(empty)]
    assert dict(FeatureStore.open(out).failures()) == reasons
    empty.unlink()
    save_photo(broken, seed=50)
    report = extraction_job.run(FakeExtractor(), [photos], out)
    assert report[:3] == (1, 6, [])
    assert [path for path, _ in FeatureStore.open(out).failures()] == [str(empty), str(tmp_path / "missing.jpg")]


def test_photos_without_features_are_kept_too(photos: Path, tmp_path: Path) -> None:
    assert extraction_job.run(FakeExtractor(count=0), [photos], tmp_path / "store").done == 6
    assert [len(row.features) for row in FeatureStore.open(tmp_path / "store")] == [0] * 6
    assert extraction_job.run(FakeExtractor(count=0), [photos], tmp_path / "store").skipped == 6


def test_no_photos_is_an_error_and_makes_no_store(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DelfError, match="nothing: no photos there; give photos"):
        extraction_job.run(FakeExtractor(), [tmp_path / "nothing"], tmp_path / "store")
    with pytest.raises(DelfError, match="missing: there is no such file or folder"):
        extraction_job.run(FakeExtractor(), [tmp_path / "missing"], tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_another_model_is_refused(photos: Path, tmp_path: Path) -> None:
    extraction_job.run(FakeExtractor(), [photos], tmp_path / "store")
    with pytest.raises(StoreError, match="scorer learned there, foreground here"):
        extraction_job.run(FakeExtractor(ExtractionSettings(scorer="foreground")), [photos], tmp_path / "store")
    assert_right(tmp_path / "store", photos)


def test_progress_counts_everything(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"x")
    seen: list[extraction_job.Progress] = []
    extraction_job.run(
        FakeExtractor(seconds=0.02), [photos], tmp_path / "store", options=JobOptions(progress=seen.append)
    )
    assert seen[-1] == (6, 0, 1, 7)
    assert [sum(p[:3]) for p in seen] == list(range(1, 8))


class Interrupted(FakeExtractor):
    """Is interrupted at the fourth photo, as by Ctrl-C."""

    def stream(
        self, items: Iterable[tuple[str, str]], *, workers: int | None = None
    ) -> Iterator[tuple[str, LocalFeatures | ImageError, str | None]]:
        for number, result in enumerate(super().stream(items, workers=workers)):
            if number == 3:
                raise KeyboardInterrupt
            yield result


def test_an_interruption_keeps_what_is_finished(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        extraction_job.run(Interrupted(), [photos], out)
    assert len(list(FeatureStore.open(out))) == 3
    assert not (out / "lease.json").exists()
    assert extraction_job.run(FakeExtractor(), [photos], out)[:2] == (3, 3)
    assert_right(out, photos)


def test_a_full_disk_stops_the_job_and_it_goes_on_later(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "store"
    sync = atomic.sync

    def full(path: str | os.PathLike[str]) -> None:
        if "part-000001" in os.fspath(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(path)

    monkeypatch.setattr(atomic, "sync", full)
    with pytest.raises(StoreError, match="the disk is full"):
        extraction_job.run(FakeExtractor(), [photos], out, options=JobOptions(part_photos=2))
    monkeypatch.setattr(atomic, "sync", sync)
    assert len(list(FeatureStore.open(out))) == 2
    assert len(list((out / "parts").iterdir())) == 1
    assert extraction_job.run(FakeExtractor(), [photos], out, options=JobOptions(part_photos=2))[:2] == (4, 2)
    assert_right(out, photos)


def start(photos: Path, out: Path, *, seconds: float) -> "subprocess.Popen[bytes]":
    code = (
        "import sys; from delf_jax import job; from tests.delf_jax.fake_extractor import FakeExtractor; "
        "job.run(FakeExtractor(seconds=float(sys.argv[3])), [sys.argv[1]], sys.argv[2], "
        "options=job.JobOptions(part_photos=2))"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(photos), str(out), str(seconds)], cwd=REPOSITORY)


def wait_for_parts(out: Path, count: int) -> None:
    for _ in range(1500):
        if (out / "manifest.json").exists() and sum(1 for _ in FeatureStore.open(out).iter_parts()) >= count:
            return
        time.sleep(0.02)
    pytest.fail("the job made no progress")


@pytest.mark.parametrize("parts", [1, 4])
def test_a_killed_job_goes_on_where_it_stopped(parts: int, photos: Path, tmp_path: Path) -> None:
    for seed in range(6, 30):
        save_photo(photos / f"{seed}.bmp", seed)
    out = tmp_path / "store"
    process = start(photos, out, seconds=0.05)
    try:
        wait_for_parts(out, parts)
        with pytest.raises(StoreError, match="another writer is at work"):
            extraction_job.run(FakeExtractor(), [photos], out)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    kept = len(list(FeatureStore.open(out)))
    assert 2 * parts <= kept < 30
    report = extraction_job.run(FakeExtractor(), [photos], out)
    assert report == (30 - kept, kept, [], 30, {})
    assert_right(out, photos)
