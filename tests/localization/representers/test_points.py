"""The kept training positions, and the photos that lie on disk beside them."""

import io
import os
import resource
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import localization
from delf_jax.errors import PredictorError
from localization.representers.fitted_photos import FittedPhoto, FittedPhotos, PhotoSpool
from localization.representers.points import PointCollector, Points, thumbnail
from tests.localization.planted import MAPS


def spooled(count: int, *, picture: bytes | None = None) -> FittedPhotos:
    spool = PhotoSpool()
    for number in range(count):
        spool.add(
            FittedPhoto(f"{number}.jpg", (20, 30 + number), (2.5, 3), (5, 6.5), None if number % 2 else "odd", picture)
        )
    return spool.finish()


def collected(names: str, *, max_points: int) -> Points:
    """Photos of 2 x 2 cells, their pictures being their names."""
    collector = PointCollector(max_points)
    for name in names:
        unit, norms = np.ones((2, 2, 5), np.float16), np.ones((2, 2), np.float32)
        collector.add(FittedPhoto(name, (20, 20), (5, 5), (10, 10)), unit, norms, picture=name.encode)
    return collector.finish()


def test_the_sample_stays_what_it_was() -> None:
    """Positions kept of these photos when they were all held in memory: samples of then and of now merge."""
    points = localization.fit(MAPS, max_points=6).points
    names = [photo.name for photo in points.photos.take(points.photo)]
    assert [(name, *cell) for name, cell in zip(names, points.cell.tolist())] == [
        ("photo4.npy", 5, 1),
        ("photo10.npy", 3, 7),
        ("photo9.npy", 6, 7),
        ("photo8.npy", 0, 7),
        ("photo6.npy", 5, 5),
        ("photo6.npy", 5, 9),
    ]


def test_pictures_are_saved_beside_kept_positions_only(tmp_path: Path) -> None:
    points = collected("abcdefgh", max_points=3)
    points.save(tmp_path)
    opened = Points.open(tmp_path)
    assert len(points) == len(opened) == 3
    kept = {photo.name for photo in points.photos.take(points.photo)}
    expected = [name.encode() if name in kept else None for name in "abcdefgh"]
    assert [photo.thumbnail for photo in opened.photos] == expected
    assert list(opened.photos.names()) == list("abcdefgh")


def test_saved_samples_add_up_to_that_of_the_whole(tmp_path: Path) -> None:
    whole = collected("abcdefgh", max_points=7)
    for number, names in enumerate(("abc", "defgh")):
        (tmp_path / str(number)).mkdir()
        collected(names, max_points=7).save(tmp_path / str(number))
    merged = Points.open(tmp_path / "0") + Points.open(tmp_path / "1")
    np.testing.assert_array_equal(merged.photo, whole.photo)
    np.testing.assert_array_equal(merged.cell, whole.cell)
    assert merged.photos.take(merged.photo) == whole.photos.take(whole.photo)
    assert list(merged.photos.names()) == list("abcdefgh")
    with pytest.raises(PredictorError, match=r"^d: this photo is in both predictors"):
        merged + Points.open(tmp_path / "1")
    rest = merged - Points.open(tmp_path / "0")
    assert list(rest.photos.names()) == list("defgh")
    assert {photo.name for photo in rest.photos.take(rest.photo)} <= set("defgh")


def test_any_photos_are_read_in_the_order_asked_for() -> None:
    photos = spooled(9000)  # several row groups
    asked = [8999, 0, 4321, 8999, 1]
    assert photos.take(asked) == [
        FittedPhoto(f"{number}.jpg", (20, 30 + number), (2.5, 3), (5, 6.5), None if number % 2 else "odd")
        for number in asked
    ]
    assert len(photos) == 9000
    with pytest.raises(IndexError, match="there are 9000 photos"):
        photos.take([9000])


def test_photos_of_earlier_versions_are_read(tmp_path: Path) -> None:
    columns = {"name": ["a", "b"], "height": [20, 30], "width": [40, 50], "cell_rows": [2, 3], "cell_columns": [4, 5]}
    texts = {"label": pa.array([None, "cat"], pa.string()), "thumbnail": pa.array([b"jpeg", None], pa.binary())}
    pq.write_table(pa.table(columns | texts), tmp_path / "photos.parquet")
    photos = FittedPhotos(tmp_path / "photos.parquet")
    assert list(photos) == [
        FittedPhoto("a", (20, 40), (0, 0), (19, 13), None, b"jpeg"),
        FittedPhoto("b", (30, 50), (0, 0), (14.5, 12.25), "cat", None),
    ]
    assert photos.take([1])[0].position(np.array([2, 4])) == (49, 29)


def test_photos_of_earlier_versions_are_read_no_further_than_asked_for(tmp_path: Path) -> None:
    count = 5000
    columns = {name: [1] * count for name in ("height", "width", "cell_rows", "cell_columns")}
    texts = {"label": pa.nulls(count, pa.string()), "thumbnail": pa.nulls(count, pa.binary())}
    table = pa.table({"name": [str(number) for number in range(count)]} | columns | texts)
    pq.write_table(table, tmp_path / "photos.parquet")
    photos = FittedPhotos(tmp_path / "photos.parquet")
    read: list[int] = []

    def noted(**options: object) -> Iterator[pa.RecordBatch]:
        for batch in FittedPhotos._batches(photos, **options):
            read.append(len(batch))
            yield batch

    photos._batches = noted
    assert [photo.name for photo in photos.take([1030, 7])] == ["1030", "7"]
    assert sum(read) < 3000
    assert [photo.name for photo in photos.take([1023])] == ["1023"]
    assert [photo.name for photo in photos.take([4999])] == ["4999"]


@pytest.mark.parametrize("shape", [(448, 1), (10, 4000), (1, 4000), (300, 200), (20, 30)])
def test_a_thumbnail_of_any_photo_has_pixels(shape: tuple[int, int]) -> None:
    picture = Image.open(io.BytesIO(thumbnail(np.full((*shape, 3), 90, np.uint8), 160)))
    scale = min(1.0, 160 / max(shape))
    assert picture.size == (max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale)))


def test_neither_photos_nor_their_pictures_stay_in_memory() -> None:
    tracemalloc.start()
    try:
        photos = spooled(4000, picture=bytes(8000))
        (last,) = photos.take([3999])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(last.thumbnail) == 8000
    assert peak < 4_000_000  # of 32 MB


def test_the_temporary_file_has_no_name_and_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = len(os.listdir("/dev/fd"))
    collector = PointCollector(3)
    assert len(os.listdir("/dev/fd")) == before + 1
    assert not list(tmp_path.iterdir())
    del collector  # as when a photo fails, or Ctrl-C is pressed
    points = collected("abc", max_points=3)
    assert len(os.listdir("/dev/fd")) == before + 1
    assert not list(tmp_path.iterdir())
    del points
    assert len(os.listdir("/dev/fd")) == before


def test_a_full_disk_is_named() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(
            PredictorError, match=r"cannot be written there \(File too large\); free some space, or set TMPDIR"
        ):
            collected("abc", max_points=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
