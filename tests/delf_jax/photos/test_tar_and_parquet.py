"""Photos in tar and Parquet shards are those that went in, under names that lead back to them."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from delf_jax.errors import ImageError
from delf_jax.job import extraction_job
from delf_jax.photos.find import PhotoFile, find_photos
from delf_jax.photos.load import load_photo, read_bytes
from delf_jax.store.reader import FeatureStore
from tests.delf_jax.fake_extractor import FakeExtractor


def photo(seed: int) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)).save(sink, "PNG")
    return sink.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(data), 1_700_000_000
            archive.addfile(entry, io.BytesIO(data))
    return path


def found(*names: Path | str) -> list[str]:
    return [file.path if isinstance(file, PhotoFile) else str(file) for file in find_photos(names)]


def test_a_tar_gives_its_photos(tmp_path: Path) -> None:
    files = {"a/0.png": photo(0), "a/0.json": b"{}", "../1.PNG": photo(1), "a/.2.png": photo(2)}
    shard = write_tar(tmp_path / "00.tar", files)
    assert found(shard) == found(tmp_path / "*.tar") == [f"{shard}::a/0.png", f"{shard}::../1.PNG"]
    assert [read_bytes(name) for name in found(shard)] == [photo(0), photo(1)]
    assert next(find_photos([shard])) == PhotoFile(f"{shard}::a/0.png", len(photo(0)), 1_700_000_000 * 10**9)
    with pytest.raises(ImageError, match="there is no such file"):
        read_bytes(f"{shard}::a/9.png")


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_a_parquet_file_gives_its_rows(named: bool, nested: bool, tmp_path: Path) -> None:
    photos = [photo(seed) for seed in range(5)]
    column = pa.array(photos, pa.binary())
    table = pa.table({"image": pa.StructArray.from_arrays([column], ["bytes"]) if nested else column})
    if named:
        table = table.append_column("key", pa.array([f"k{i}" for i in range(5)]))
    shard = tmp_path / "x.parquet"
    pq.write_table(table, shard, row_group_size=2)
    assert found(shard) == [f"{shard}::{'k' if named else ''}{i}" for i in range(5)]
    assert [read_bytes(name) for name in found(shard)] == photos


THREE = [photo(seed) for seed in range(3)]


def structs(paths: list[str | None] | None) -> list[dict[str, object]]:
    return [{"bytes": data} | ({} if paths is None else {"path": paths[row]}) for row, data in enumerate(THREE)]


@pytest.mark.parametrize(
    ("paths", "columns", "keys"),
    [
        (None, {}, ["0", "1", "2"]),
        (["a", "b", "c"], {}, ["a", "b", "c"]),
        (["a", "b", "c"], {"file_name": ["x", "y", "z"]}, ["a", "b", "c"]),
        (["a", "a", "c"], {"file_name": ["x", "y", "z"]}, ["x", "y", "z"]),
        (["a", None, "c"], {}, ["0", "1", "2"]),
        (["a", "", "c"], {}, ["0", "1", "2"]),
        (None, {"name": ["cat", "cat", "dog"]}, ["0", "1", "2"]),
        (None, {"id": pa.nulls(3)}, ["0", "1", "2"]),
        (None, {"id": pa.array([7, None, 9])}, ["0", "1", "2"]),
        (None, {"file_name": ["x", "x", "z"], "id": [7, 8, 9]}, ["7", "8", "9"]),
        (None, {"path": pa.array([b"x", b"y", b"z"]), "image_id": ["u", "v", "w"]}, ["u", "v", "w"]),
    ],
)
def test_no_row_is_lost_whatever_the_columns_say(
    paths: list[str | None] | None, columns: dict[str, Any], keys: list[str], tmp_path: Path
) -> None:
    shard = tmp_path / "x.parquet"
    pq.write_table(pa.table(columns | {"image": structs(paths)}), shard, row_group_size=2)
    assert found(shard) == [f"{shard}::{key}" for key in keys]
    assert [read_bytes(name) for name in found(shard)] == THREE


MASKS = [b"m0", b"m1", b"m2"]


@pytest.mark.parametrize(
    "columns",
    [
        {"mask": MASKS, "image": THREE},
        {"thumb": MASKS, "photo": structs(None)},
        {"mask": [{"bytes": mask} for mask in MASKS], "image": structs(["a", "b", "c"])},
        {"JPG": THREE, "embedding": MASKS},
        {"image": [{"mask": mask, "bytes": data} for mask, data in zip(MASKS, THREE)]},
        {"png_or_jpeg": THREE},
    ],
)
def test_the_column_of_photos_is_chosen_by_name_and_type(columns: dict[str, Any], tmp_path: Path) -> None:
    shard = tmp_path / "x.parquet"
    pq.write_table(pa.table(columns), shard)
    assert [read_bytes(name) for name in found(shard)] == THREE


@pytest.mark.parametrize("names", [("left", "right"), ("jpg", "png"), ("thumb", "data")])
def test_in_doubt_the_column_is_named(names: tuple[str, str], tmp_path: Path) -> None:
    shard = tmp_path / "x.parquet"
    pq.write_table(pa.table({names[0]: MASKS, names[1]: THREE, "key": ["a", "b", "c"]}), shard)
    assert found(shard) == [
        f"{shard}: {names[0]} and {names[1]} may all be its photos; name one, as in {shard}::{names[0]}"
    ]
    for chosen, expected in zip(names, (MASKS, THREE)):
        assert found(f"{shard}::{chosen}") == found(f"{tmp_path}/*.parquet::{chosen}")
        assert found(f"{shard}::{chosen}") == [f"{shard}::{chosen}::{key}" for key in "abc"]
        assert [read_bytes(name) for name in found(f"{shard}::{chosen}")] == expected
    refused = f"it has no column nothing of bytes, but {names[0]}, {names[1]}"
    assert found(f"{shard}::nothing") == [f"{shard}: {refused}"]
    with pytest.raises(ImageError, match="name its column of photos") as error:
        read_bytes(f"{shard}::a")
    assert "damaged" not in str(error.value)


def test_a_row_may_have_the_name_of_the_column(tmp_path: Path) -> None:
    shard = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": THREE, "key": ["image", "b", "c"]}), shard)
    assert [read_bytes(name) for name in found(shard)] == THREE


def test_a_name_that_is_twice_in_a_tar_is_told(tmp_path: Path) -> None:
    shard = tmp_path / "x.tar"
    with tarfile.open(shard, "w") as archive:
        for name in ("a.png", "b.png", "a.png"):
            entry = tarfile.TarInfo(name)
            entry.size = len(photo(0))
            archive.addfile(entry, io.BytesIO(photo(0)))
    assert found(shard) == [f"{shard}::a.png: is in the shard twice; rename one of the two", f"{shard}::b.png"]
    with pytest.raises(ImageError, match="there is no such file"):
        read_bytes(f"{shard}::a.png")


def test_the_job_goes_on_in_the_middle_of_a_shard_and_notices_changes(tmp_path: Path) -> None:
    files = {f"{i}.png": photo(i) for i in range(6)} | {"broken.jpg": b"not a photo"}
    shard = write_tar(tmp_path / "00.tar", files)
    first = [f"{shard}::{i}.png" for i in range(2)]
    store = tmp_path / "store"
    report = extraction_job.run(FakeExtractor(), [shard], store)
    assert (report.done, [name for name, _ in report.failed]) == (6, [f"{shard}::broken.jpg"])
    for row in FeatureStore.open(store):
        assert row.features.image_size == load_photo(row.path, max_side=None).original_size
    assert extraction_job.run(FakeExtractor(), [shard], store)[:2] == (0, 6)
    write_tar(shard, files | {"0.png": photo(10) + b"more", "1.png": photo(1)})
    extractor = FakeExtractor()
    assert extraction_job.run(extractor, [shard], store)[:2] == (1, 5)
    assert extractor.asked == [first[0], f"{shard}::broken.jpg"]


@pytest.mark.parametrize(
    ("name", "data"), [("x.tar", b"no tar" * 100), ("x.parquet", b"PAR1 not"), ("x.tar", b"\x1f\x8b" + b"0" * 600)]
)
def test_a_damaged_shard_is_told(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    (error,) = find_photos([tmp_path / name])
    assert isinstance(error, ImageError)
    assert "is not a readable shard" in error.reason


def test_parquet_without_photos_is_told_and_folders_are_not_searched_for_shards(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    assert "no column of bytes" in found(tmp_path / "a.parquet")[0]
    write_tar(tmp_path / "b.tar", {"0.png": photo(0)})
    assert found(tmp_path) == []
