"""The feature store keeps what was put in, and says what it cannot read."""

import errno
import os
from pathlib import Path

import fsspec
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from delf_jax.errors import StoreError
from delf_jax.files.folder import Folder
from delf_jax.settings import ExtractionSettings
from delf_jax.store.reader import FeatureStore
from tests.delf_jax.store.store_samples import DIMENSION, assert_same, photo, writer


@pytest.mark.parametrize("where", ["folder", "memory"])
def test_what_goes_in_comes_out(where: str, tmp_path: Path) -> None:
    path = str(tmp_path / "größe 日本") if where == "folder" else f"memory://stores/{tmp_path.name}"
    photos = [
        photo("/a/é 日本.jpg", seed=1),
        photo("/a/empty.jpg", count=0, seed=2),
        photo("/a/3.jpg", count=1, seed=3),
    ]
    with writer(path) as store:
        store.append(photos[:2])
        store.append(photos[2:])
    with writer(path) as store:
        store.append([photo("/b.jpg", count=0, seed=4)])
    read = FeatureStore.open(path)
    assert (len(read), read.fingerprint, read.dimension) == (4, "f" * 64, DIMENSION)
    assert read.settings == ExtractionSettings()
    for kept, given in zip(read, [*photos, photo("/b.jpg", count=0, seed=4)], strict=True):
        assert_same(kept, given)
    assert [len(part) for part in read.iter_parts()] == [2, 1, 1]
    assert read.check() == []
    assert read.head_path is None


def test_any_arrow_tool_reads_it(tmp_path: Path) -> None:
    with writer(tmp_path / "s") as store:
        store.append([photo("/1.jpg", seed=1), photo("/2.jpg", count=3, seed=2)])
    table = pq.read_table(tmp_path / "s" / "parts")
    assert table.column("path").to_pylist() == ["/1.jpg", "/2.jpg"]
    assert str(table.schema.field("descriptors").type.value_type) == "halffloat"
    assert [len(row) for row in table.column("descriptors").to_pylist()] == [7 * DIMENSION, 3 * DIMENSION]


@pytest.mark.parametrize("where", ["folder", "memory"])
def test_a_dataset_has_the_rows_that_count(where: str, tmp_path: Path) -> None:
    path = str(tmp_path / "s") if where == "folder" else f"memory://datasets/{tmp_path.name}"
    with writer(path) as store:
        assert FeatureStore.open(path).dataset().to_table().num_rows == 0
        store.append([photo("/1.jpg", seed=1), photo("/2.jpg", seed=2)])
        store.append([photo("/2.jpg", seed=3), photo("/3.jpg", seed=4)])
        store.append([photo("/1.jpg", seed=5)])
    read = FeatureStore.open(path)
    table = read.dataset().to_table(columns=["path", "size"]).to_pydict()
    assert list(zip(*table.values())) == [(row.path, row.size) for row in read]
    assert table == {"path": ["/2.jpg", "/3.jpg", "/1.jpg"], "size": [1003, 1004, 1005]}
    assert read.dataset().count_rows(filter=pc.field("size") > 1003) == 2


def test_a_photo_done_anew_counts_once(tmp_path: Path) -> None:
    with writer(tmp_path / "s") as store:
        store.append([photo("/1.jpg", seed=1), photo("/2.jpg", seed=2)])
    with writer(tmp_path / "s") as store:
        store.append([photo("/3.jpg", seed=3), photo("/1.jpg", seed=4), photo("/1.jpg", seed=5)])
        known = store.known("/1.jpg")
        assert known is not None
        assert known.has_content(f"{5:064x}")
        store.append([photo("/3.jpg", seed=6)])
    with writer(tmp_path / "s") as store:
        known = store.known("/3.jpg")
        assert known is not None
        assert known.size == 1006
        assert store.known("/4.jpg") is None
    read = FeatureStore.open(tmp_path / "s")
    assert [(p.path, p.size) for p in read] == [("/2.jpg", 1002), ("/1.jpg", 1005), ("/3.jpg", 1006)]
    assert len(read) == 3
    assert read.check() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"settings": ExtractionSettings(max_side=512)}, "max_side 1024 there, 512 here"),
        ({"dimension": 40}, "descriptors of 8 values there, 40 here"),
        ({"fingerprint": "another"}, "the weights or the head file differ"),
    ],
)
def test_a_store_of_another_kind_is_refused(change: dict[str, object], words: str, tmp_path: Path) -> None:
    writer(tmp_path / "s").close()
    with pytest.raises(StoreError, match=words):
        writer(tmp_path / "s", **change)
    writer(tmp_path / "s").close()


def test_a_missing_head_of_a_store_elsewhere_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "head").write_bytes(b"basis")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    writer("memory://headless/s", head=tmp_path / "head").close()
    opened = FeatureStore.open("memory://headless/s")
    fsspec.filesystem("memory").rm("/headless/s/head.safetensors")
    with pytest.raises(StoreError, match="is missing; put it back"):
        opened.head_path  # noqa: B018


def test_it_carries_its_head_file(tmp_path: Path) -> None:
    head = tmp_path / "head"
    head.write_bytes(b"basis")
    writer(tmp_path / "s", head=head).close()
    kept = FeatureStore.open(tmp_path / "s").head_path
    assert kept == tmp_path / "s" / "head.safetensors"
    assert kept.read_bytes() == b"basis"
    writer(tmp_path / "s", head=kept).close()
    head.write_bytes(b"other")
    with pytest.raises(StoreError, match="head file differ"):
        writer(tmp_path / "s", head=head)
    kept.write_bytes(b"bent")
    assert [damage.name for damage in FeatureStore.open(tmp_path / "s").check()] == ["head.safetensors"]


def test_places_that_hold_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no feature store; make one"):
        FeatureStore.open(tmp_path / "none")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(b"x")
    with pytest.raises(StoreError, match="neither empty nor a feature store"):
        writer(tmp_path / "photos")
    assert os.listdir(tmp_path / "photos") == ["1.jpg"]
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StoreError, match="file"):
        writer(tmp_path / "file")
    with pytest.raises(StoreError, match="Protocol not known"):
        FeatureStore.open("nope://x")


def test_a_full_disk_leaves_the_store_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with writer(tmp_path / "s") as store:
        store.append([photo("/1.jpg", seed=1)])
        sync = os.fsync

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="the disk is full; free some space"):
            store.append([photo("/2.jpg", seed=2)])
        monkeypatch.setattr(os, "fsync", sync)
        assert len(store) == 1
        assert store.known("/2.jpg") is None
        assert len(list((tmp_path / "s" / "parts").iterdir())) == 1
        store.append([photo("/2.jpg", seed=2)])
    assert [p.path for p in FeatureStore.open(tmp_path / "s")] == ["/1.jpg", "/2.jpg"]


def test_unlisted_leftovers_of_a_killed_writer_go_away(tmp_path: Path) -> None:
    with writer(tmp_path / "s") as store:
        store.append([photo("/1.jpg")])
    parts = tmp_path / "s" / "parts"
    (parts / "part-000009-0123456789ab.parquet").write_bytes(b"finished, not listed")
    (parts / ".part-000010-0123456789ab.parquet.0.tmp").write_bytes(b"hal")
    assert len(FeatureStore.open(tmp_path / "s")) == 1
    writer(tmp_path / "s").close()
    assert len(list(parts.iterdir())) == 1


def test_an_object_store_gets_one_put_a_part() -> None:
    memory = fsspec.filesystem("memory")
    with writer("memory://puts/s") as store:
        store.append([photo("/1.jpg")])
    assert sorted(os.path.basename(name) for name in memory.find("/puts/s")) == [
        "000000000000.json",
        "000000000001.json",
        "manifest.json",
        os.path.basename(memory.ls("/puts/s/parts", detail=False)[0]),
        next(name for name in Folder("memory://puts/s").names("commits") if name.startswith("snapshot-")),
    ]


def test_an_object_store_is_read_past_its_cached_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder("memory://cached/s")
    folder.write("lease.json", b"new")
    monkeypatch.setattr(type(folder.filesystem), "info", lambda *_, **__: pytest.fail("it was looked up"))
    monkeypatch.setattr(type(folder.filesystem), "open", lambda *_, **__: pytest.fail("it was looked up"))
    assert folder.read("lease.json") == b"new"
