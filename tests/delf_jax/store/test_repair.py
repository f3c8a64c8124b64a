"""What is damaged is named and removed, and a lost manifest is made again from the parts."""

import contextlib
import errno
import hashlib
import io
import os
import shutil
from pathlib import Path

import fsspec
import pyarrow.parquet as pq
import pytest

from delf_jax.errors import StoreError
from delf_jax.files.folder import Folder
from delf_jax.settings import ExtractionSettings
from delf_jax.store import parts
from delf_jax.store.reader import FeatureStore
from delf_jax.store.repair import repair
from tests.delf_jax.store.store_samples import commits, photo, snapshots, writer


def lose_commits(store: Path) -> None:
    shutil.rmtree(store / "commits")


@pytest.mark.parametrize("how", ["bit", "cut", "gone"])
def test_a_damaged_part_is_named_and_dropped(how: str, tmp_path: Path) -> None:
    with writer(tmp_path / "s") as store:
        for seed in range(3):
            store.append([photo(f"/{seed}.jpg", seed=seed)])
    part = sorted((tmp_path / "s" / "parts").iterdir())[1]
    data = bytearray(part.read_bytes())
    if how == "bit":
        data[len(data) // 3] ^= 4
        part.write_bytes(data)
    elif how == "cut":
        part.write_bytes(data[:-5])
    else:
        part.unlink()
    read = FeatureStore.open(tmp_path / "s")
    with pytest.raises(StoreError, match=f"{part.name} is damaged.*--repair"):
        list(read)
    assert [damage.name for damage in read.check()] == [part.name]
    assert [damage.name for damage in repair(tmp_path / "s")] == [part.name]
    assert repair(tmp_path / "s") == []
    assert [p.path for p in FeatureStore.open(tmp_path / "s")] == ["/0.jpg", "/2.jpg"]
    assert len(list((tmp_path / "s" / "parts").iterdir())) == 2
    with writer(tmp_path / "s") as store:
        assert store.known("/1.jpg") is None
        assert store.known("/2.jpg") is not None
        store.append([photo("/1.jpg", seed=1)])
    assert len(FeatureStore.open(tmp_path / "s")) == 3


@pytest.mark.parametrize("file", ["snapshot", "commit"])
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_lost_manifest_is_made_again_from_the_parts(how: str, file: str, tmp_path: Path) -> None:
    (tmp_path / "head").write_bytes(b"basis")
    settings = ExtractionSettings(max_side=512)
    with writer(tmp_path / "s", settings=settings, head=tmp_path / "head") as store:
        store.append([photo("/1.jpg", seed=1), photo("/2.jpg", seed=2)])
        store.append([photo("/1.jpg", seed=3)])
        store.append([photo("/4.jpg", seed=4)])
    before = FeatureStore.open(tmp_path / "s")
    commit = (snapshots if file == "snapshot" else commits)(tmp_path / "s")[-1]
    if how == "missing":
        commit.unlink()
    else:
        commit.write_bytes(commit.read_bytes()[:-9])
    if (how, file) == ("missing", "commit"):  # as if the writer had been killed before it
        assert len(FeatureStore.open(tmp_path / "s")) == 2
        damages = [(sorted((tmp_path / "s" / "parts").iterdir())[-1].name, "no commit lists it")]
    else:
        damages = [(f"commits/{commit.name}", f"it is {how}")]
        for open_it in (FeatureStore.open, writer):  # a writer must not remove the parts, which no commit lists
            words = f"its {damages[0][0]} is {how}; `delf-jax check .* --repair` makes it again"
            with pytest.raises(StoreError, match=words):
                open_it(tmp_path / "s")
    assert repair(tmp_path / "s") == damages
    after = FeatureStore.open(tmp_path / "s")
    assert after._manifest == before._manifest
    assert [(p.path, p.size) for p in after] == [("/2.jpg", 1002), ("/1.jpg", 1003), ("/4.jpg", 1004)]
    assert after.check() == []
    assert repair(tmp_path / "s") == []
    with writer(tmp_path / "s", settings=settings, head=tmp_path / "head") as store:
        store.append([photo("/2.jpg", seed=5)])
    assert [p.path for p in FeatureStore.open(tmp_path / "s")] == ["/1.jpg", "/4.jpg", "/2.jpg"]


def test_a_manifest_made_again_leaves_damaged_parts_out(tmp_path: Path) -> None:
    with writer(tmp_path / "s") as store:
        for seed in range(3):
            store.append([photo(f"/{seed}.jpg", seed=seed)])
    lose_commits(tmp_path / "s")
    part = sorted((tmp_path / "s" / "parts").iterdir())[2]
    part.write_bytes(part.read_bytes()[:-5])
    assert [damage.name for damage in repair(tmp_path / "s")] == ["commit log", part.name]
    with writer(tmp_path / "s") as store:
        assert [store.known(f"/{seed}.jpg") is not None for seed in range(3)] == [True, True, False]
        store.append([photo("/2.jpg", seed=2)])
    assert len(list((tmp_path / "s" / "parts").iterdir())) == 3


def test_parts_that_are_missing_or_have_no_photos_are_named_when_a_manifest_is_made_again(tmp_path: Path) -> None:
    with writer(tmp_path / "s") as store:
        for seed in range(4):
            store.append([photo(f"/{seed}.jpg", seed=seed)])
    newest = commits(tmp_path / "s")[-1]
    newest.write_bytes(newest.read_bytes()[:-9])
    gone, first, *_ = sorted((tmp_path / "s" / "parts").iterdir())
    table = io.BytesIO()
    pq.write_table(pq.read_table(first).slice(0, 0), table)
    empty = f"part-000009-{hashlib.sha256(table.getvalue()).hexdigest()[:12]}.parquet"
    (tmp_path / "s" / "parts" / empty).write_bytes(table.getvalue())
    gone.unlink()
    assert repair(tmp_path / "s")[1:] == [(gone.name, "it is missing"), (empty, "it is not readable: it has no photos")]
    assert [p.path for p in FeatureStore.open(tmp_path / "s")] == [f"/{seed}.jpg" for seed in (1, 2, 3)]


def test_what_no_part_says_is_not_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, continued, mixed = tmp_path / "old", tmp_path / "continued", tmp_path / "mixed"
    with monkeypatch.context() as patch, writer(old) as store:
        encode = parts.encode
        patch.setattr("delf_jax.store.parts.encode", lambda photos, *, origin, **known: encode(photos, **known))
        store.append([photo("/1.jpg")])
    shutil.copytree(old, continued)
    with writer(continued) as store:
        store.append([photo("/2.jpg")])
    shutil.copytree(continued, mixed)
    with writer(tmp_path / "other", settings=ExtractionSettings(max_side=512)) as store:
        store.append([photo("/3.jpg")])
    shutil.copytree(tmp_path / "other" / "parts", mixed / "parts", dirs_exist_ok=True)
    for lost in (old, continued, mixed):
        lose_commits(lost)
    with pytest.raises(StoreError, match="no part says which settings made it, as older parts do not; put back a copy"):
        repair(old)
    with pytest.raises(StoreError, match="its parts were made with different settings; put back a copy"):
        repair(mixed)
    repair(continued)
    assert [p.path for p in FeatureStore.open(continued)] == ["/1.jpg", "/2.jpg"]


def test_an_object_store_that_fails_while_the_failures_are_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with writer("memory://fails/s") as store:
        store.write_failures([("/1.jpg", "is empty")])
    opened = FeatureStore.open("memory://fails/s")
    assert opened.failures() == [("/1.jpg", "is empty")]

    def reset(*_: object, **__: object) -> None:
        raise ConnectionError("reset")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", reset)
    with pytest.raises(StoreError, match=r"memory://fails/s/failures.jsonl: cannot be read \(reset\)"):
        opened.failures()


@pytest.mark.parametrize("kind", ["parts", "runs"])
@pytest.mark.parametrize(
    ("place", "number", "lost"),
    [("disk", errno.EACCES, False), ("disk", errno.EIO, True), ("memory", errno.ETIMEDOUT, False)],
)
def test_repair_removes_only_what_never_can_be_read(
    kind: str, place: str, number: int, lost: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = str(tmp_path / "s") if place == "disk" else f"memory://{tmp_path.name}/s"
    with writer(address) as store:
        store.append([photo("/1.jpg")])
        store.write_run("run-20260101T000000.000000Z-01234567.json", b"")
    folder = Folder(address)
    (name,) = folder.names(kind)
    read = Folder.read

    def failing(self: Folder, file: str) -> bytes:
        if file == f"{kind}/{name}":
            raise OSError(number, os.strerror(number))
        return read(self, file)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "read", failing)
        with contextlib.nullcontext() if lost else pytest.raises(StoreError, match=f"{name}: cannot be read"):
            repair(address)
    assert folder.names(kind) == ([] if lost else [name])


def test_a_connection_that_fails_damages_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    with writer("memory://flaky/s") as store:
        store.append([photo("/1.jpg")])
    read = Folder.read

    def reset(self: Folder, name: str) -> bytes:
        if name.startswith("parts/"):
            raise ConnectionError("reset")
        return read(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "read", reset)
        for use in (repair, lambda path: list(FeatureStore.open(path)), lambda path: FeatureStore.open(path).check()):
            with pytest.raises(StoreError, match=r"cannot be read \(reset\); check the disk or the connection"):
                use("memory://flaky/s")

    class Lost(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise TimeoutError("timed out")

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "open", lambda self, name: Lost(bytes(999)))
        patch.setattr(Folder, "read", lambda self, name: self.filesystem.cat_file(f"{self.root}/{name}"))
        with pytest.raises(StoreError, match=r"timed out.*; check the disk or the connection"):
            writer("memory://flaky/s")
    assert [p.path for p in FeatureStore.open("memory://flaky/s")] == ["/1.jpg"]
