"""The feature store keeps what was put in, names what is damaged, and lets one writer in at a time."""

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from delf_jax import parts
from delf_jax.errors import StoreError
from delf_jax.features import LocalFeatures
from delf_jax.folder import Folder
from delf_jax.parts import StoredPhoto
from delf_jax.settings import ExtractionSettings
from delf_jax.store import FeatureStore
from delf_jax.store_repair import repair
from delf_jax.store_writer import StoreWriter

DIMENSION = 8


def writer(path: str | Path, **changes: object) -> StoreWriter:
    arguments = {"settings": ExtractionSettings(), "fingerprint": "f" * 64, "dimension": DIMENSION} | changes
    return StoreWriter(path, **arguments)  # type: ignore[arg-type]


def photo(name: str, *, count: int = 7, seed: int = 0) -> StoredPhoto:
    random = np.random.default_rng(seed)
    descriptors = random.standard_normal((count, DIMENSION)).astype(np.float32)
    descriptors /= np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-9)
    features = LocalFeatures(
        keypoints=random.uniform(-1, 4000, (count, 2)).astype(np.float32),
        scales=random.uniform(0.1, 2, count).astype(np.float32),
        scores=-np.sort(-random.uniform(0, 9, count).astype(np.float32)),
        descriptors=descriptors,
        image_size=(3000, 4000),
    )
    return StoredPhoto(name, 1000 + seed, 123_456_789_012_345_678, f"{seed:064x}", features)


def assert_same(a: StoredPhoto, b: StoredPhoto) -> None:
    assert a[:4] == b[:4]
    assert a.features.image_size == b.features.image_size
    for name in ("keypoints", "scales", "scores"):
        np.testing.assert_array_equal(getattr(a.features, name), getattr(b.features, name))
        assert getattr(a.features, name).dtype == np.float32
    assert a.features.descriptors.dtype == np.float32
    assert a.features.descriptors.shape == b.features.descriptors.shape
    np.testing.assert_allclose(a.features.descriptors, b.features.descriptors, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(a.features.descriptors, axis=1), 1, atol=1e-6)


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


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with writer(tmp_path / "s"), pytest.raises(StoreError, match=r"another writer is at work in it \(process \d+ on"):
        writer(tmp_path / "s")
    with writer("memory://two/writers"), pytest.raises(StoreError, match="another writer is at work"):
        writer("memory://two/writers")
    for path in (tmp_path / "s", "memory://two/writers"):
        writer(path).close()


def test_a_writer_elsewhere_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = writer(tmp_path / "s")
    lease = tmp_path / "s" / "lease.json"
    fresh = json.loads(lease.read_bytes())
    first.close()

    def elsewhere(**changes: object) -> None:
        lease.write_text(json.dumps(fresh | {"computer": "another", "host": "another", "time": time.time()} | changes))

    elsewhere()
    writer(tmp_path / "s", lease_seconds=0.2).close()  # nobody renews it
    assert "waiting to see whether another writer is alive" in caplog.text
    for then, words in ((elsewhere, "another writer is at work"), (lease.unlink, None)):
        elsewhere()
        timer = threading.Timer(0.2, then)
        timer.start()
        with pytest.raises(StoreError, match=words) if words else contextlib.nullcontext():
            writer(tmp_path / "s", lease_seconds=5.0).close()
        timer.join()

    elsewhere(time=time.time() - 1.9)  # its clock is behind
    timer = threading.Timer(0.4, lambda: elsewhere(time=time.time() - 1.9))
    timer.start()
    with pytest.raises(StoreError, match="another writer is at work"):
        writer(tmp_path / "s", lease_seconds=2.0)
    timer.join()

    elsewhere(time=time.time() - 61)
    second = writer(tmp_path / "s")
    second.append([photo("/1.jpg")])
    elsewhere()
    with pytest.raises(StoreError, match="another writer took it over"):
        second.append([photo("/2.jpg")])
    second.close()
    assert lease.exists()
    assert len(FeatureStore.open(tmp_path / "s")) == 1


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="elsewhere, a dead process is waited for")
def test_a_dead_process_of_this_computer_is_not_waited_for() -> None:
    memory = fsspec.filesystem("memory")
    first = writer("memory://dead/s")
    held = json.loads(memory.cat("/dead/s/lease.json"))
    first.close()
    ended = subprocess.Popen(["true"])
    for process in (ended.pid, held["process"]):  # the second time, this process has got the number of one that ended
        memory.pipe("/dead/s/lease.json", json.dumps(held | {"process": process, "started": 1}).encode())
        writer("memory://dead/s").close()
        ended.wait()


@pytest.mark.skipif(os.name == "nt", reason="there are no such locks")
def test_without_locks_a_lease_keeps_others_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("delf_jax.lease.fcntl.flock", no_locks)
    with writer(tmp_path / "s"), pytest.raises(StoreError, match="another writer is at work"):
        writer(tmp_path / "s")
    writer(tmp_path / "s").close()


def test_a_lease_that_could_not_be_given_back_grows_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reset(self: Folder, name: str) -> None:
        raise StoreError("reset")

    for place in (f"memory://{tmp_path.name}/s", str(tmp_path / "s")):
        kept = writer(place, lease_seconds=0.2)
        with monkeypatch.context() as patch:
            patch.setattr(Folder, "remove", reset)
            with pytest.raises(StoreError, match="reset"):
                kept.close()
        time.sleep(0.2)
        writer(place, lease_seconds=0.2).close()


def test_a_lease_is_kept_fresh(tmp_path: Path) -> None:
    with writer(tmp_path / "s", lease_seconds=0.04) as store:
        first = json.loads((tmp_path / "s" / "lease.json").read_bytes())["time"]
        for _ in range(200):
            if json.loads((tmp_path / "s" / "lease.json").read_bytes())["time"] > first:
                break
            store._lease._released.wait(0.01)
        else:
            pytest.fail("the lease was never renewed")


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


def resealed(path: Path, **changes: object) -> None:
    """Changes a manifest, and makes its checksum right again."""
    envelope = json.loads(path.read_bytes())
    body = envelope["store"] | changes
    sha256 = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    path.write_text(json.dumps(envelope | {"store": body, "version": body["version"], "sha256": sha256}))


@pytest.mark.parametrize("name", ["manifest.json", "recent.json"])
def test_a_damaged_or_newer_manifest_is_refused(name: str, tmp_path: Path) -> None:
    with writer(tmp_path / "s") as store:
        store.append([photo("/1.jpg")])
    manifest = tmp_path / "s" / name
    good = manifest.read_text()
    resealed(manifest, version=3)
    newer = manifest.read_text()
    for bad, words in (
        (newer, "written by a newer delf-jax"),
        (good.replace('"version": 2', '"version": 3'), f"{name} is damaged.*--repair"),
        (good.replace('"next_part": ', '"next_part": 1'), f"{name} is damaged"),
        (good.replace("feature store", "feature stork"), f"{name} is damaged"),
        (good[:-9], f"{name} is damaged"),
        ("[]", f"{name} is damaged"),
        ('{"version": 1, "format": "other"}', "is not a feature store"),
    ):
        manifest.write_text(bad)
        with pytest.raises(StoreError, match=words):
            FeatureStore.open(tmp_path / "s")
        with pytest.raises(StoreError, match=words):
            writer(tmp_path / "s")


@pytest.mark.parametrize(
    ("name", "how", "words"),
    [
        ("manifest.json", "gone", "its manifest.json is missing"),
        ("manifest.json", "cut", "its manifest.json is damaged"),
        ("recent.json", "gone", "its recent.json is missing"),
        ("manifest.json", "older", "its recent.json is of another manifest.json"),
    ],
)
def test_a_lost_manifest_is_made_anew_from_the_parts(
    name: str, how: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delf_jax.manifest_files.MOST_RECENT", 1)
    (tmp_path / "head").write_bytes(b"basis")
    settings = ExtractionSettings(max_side=512)
    with writer(tmp_path / "s", settings=settings, head=tmp_path / "head") as store:
        first = (tmp_path / "s" / "manifest.json").read_bytes()
        store.append([photo("/1.jpg", seed=1), photo("/2.jpg", seed=2)])
        store.append([photo("/1.jpg", seed=3)])
        store.append([photo("/4.jpg", seed=4)])
    before = FeatureStore.open(tmp_path / "s")
    manifest = tmp_path / "s" / name
    if how == "gone":
        manifest.unlink()
    else:
        manifest.write_bytes(first if how == "older" else manifest.read_bytes()[:-9])
    for open_it in (FeatureStore.open, writer):  # a writer must not take the parts for leftovers
        with pytest.raises(StoreError, match=f"{words}; `delf-jax check .* --repair` makes it anew"):
            open_it(tmp_path / "s")
    assert [f"its {damage.name} {damage.reason[3:]}" for damage in repair(tmp_path / "s")] == [words]
    after = FeatureStore.open(tmp_path / "s")
    assert after._manifest == before._manifest
    assert [(p.path, p.size) for p in after] == [("/2.jpg", 1002), ("/1.jpg", 1003), ("/4.jpg", 1004)]
    assert after.check() == []
    with writer(tmp_path / "s", settings=settings, head=tmp_path / "head") as store:
        store.append([photo("/2.jpg", seed=5)])
    assert [p.path for p in FeatureStore.open(tmp_path / "s")] == ["/1.jpg", "/4.jpg", "/2.jpg"]


def test_a_manifest_made_anew_leaves_damaged_parts_out(tmp_path: Path) -> None:
    with writer(tmp_path / "s") as store:
        for seed in range(3):
            store.append([photo(f"/{seed}.jpg", seed=seed)])
    (tmp_path / "s" / "manifest.json").unlink()
    part = sorted((tmp_path / "s" / "parts").iterdir())[2]
    part.write_bytes(part.read_bytes()[:-5])
    assert [damage.name for damage in repair(tmp_path / "s")] == ["manifest.json", part.name]
    with writer(tmp_path / "s") as store:
        assert [store.known(f"/{seed}.jpg") is not None for seed in range(3)] == [True, True, False]
        store.append([photo("/2.jpg", seed=2)])
    assert len(list((tmp_path / "s" / "parts").iterdir())) == 3


def test_parts_that_are_gone_or_have_no_photos_are_named_when_a_manifest_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delf_jax.manifest_files.MOST_RECENT", 1)
    with writer(tmp_path / "s") as store:
        for seed in range(4):
            store.append([photo(f"/{seed}.jpg", seed=seed)])
    (tmp_path / "s" / "recent.json").unlink()
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
        patch.setattr("delf_jax.parts.encode", lambda photos, *, origin, **known: encode(photos, **known))
        store.append([photo("/1.jpg")])
    shutil.copytree(old, continued)
    with writer(continued) as store:
        store.append([photo("/2.jpg")])
    shutil.copytree(continued, mixed)
    with writer(tmp_path / "other", settings=ExtractionSettings(max_side=512)) as store:
        store.append([photo("/3.jpg")])
    shutil.copytree(tmp_path / "other" / "parts", mixed / "parts", dirs_exist_ok=True)
    for lost in (old, continued, mixed):
        (lost / "manifest.json").unlink()
    with pytest.raises(StoreError, match="no part says what settings made it, as older ones do not; put back a copy"):
        repair(old)
    with pytest.raises(StoreError, match="other settings made other parts; put back a copy"):
        repair(mixed)
    repair(continued)
    assert [p.path for p in FeatureStore.open(continued)] == ["/1.jpg", "/2.jpg"]


def test_a_store_of_the_first_format_is_read_and_goes_on(tmp_path: Path) -> None:
    with writer(tmp_path / "s") as store:
        store.append([photo("/1.jpg", seed=1), photo("/2.jpg", seed=2)])
        manifest = store._manifest
    (tmp_path / "s" / "recent.json").unlink()
    body = manifest.to_json()
    digest = hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    envelope = {"format": "delf-jax feature store", "version": 1, "sha256": digest, "store": body}
    (tmp_path / "s" / "manifest.json").write_text(json.dumps(envelope, indent=1))
    assert FeatureStore.open(tmp_path / "s")._manifest == manifest
    with writer(tmp_path / "s") as store:
        store.append([photo("/2.jpg", seed=3)])
    assert [(p.path, p.size) for p in FeatureStore.open(tmp_path / "s")] == [("/1.jpg", 1001), ("/2.jpg", 1003)]


@pytest.mark.parametrize("done", [False, True])
def test_killed_at_any_write_a_store_has_every_part_once(
    done: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delf_jax.manifest_files.MOST_RECENT", 2)
    write = Folder.write
    photos = [photo(f"/{number % 5}.jpg", count=1, seed=number) for number in range(7)]
    left = 0

    def killed_later(self: Folder, name: str, data: bytes) -> None:
        nonlocal left
        if name == "lease.json":
            return write(self, name, data)
        left -= 1
        if left or done:
            write(self, name, data)
        if not left:
            raise KeyboardInterrupt

    monkeypatch.setattr(Folder, "write", killed_later)
    writes, finished = 0, False
    while not finished:
        writes, appended, path = writes + 1, 0, tmp_path / str(writes)
        left = writes
        try:
            with writer(path) as store:
                for one in photos:
                    store.append([one])
                    appended += 1
            finished = True
        except KeyboardInterrupt:
            pass
        left = 0
        if appended:
            there = len(FeatureStore.open(path)._manifest.parts)
            assert appended <= there <= appended + 1
        with writer(path) as store:
            for one in photos[appended:]:
                store.append([one])
        read = FeatureStore.open(path)
        assert {(p.path, p.size) for p in read} == {(p.path, p.size) for p in photos[2:]}
        assert len(read) == 5
        assert read.check() == []
    assert writes > 2 + 2 * len(photos) + 2


def test_what_is_written_with_a_part_does_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delf_jax.manifest_files.MOST_RECENT", 8)
    with writer(tmp_path / "s") as store:
        sizes = []
        for number in range(50):
            store.append([photo(f"/{number}.jpg", count=0)])
            sizes.append((tmp_path / "s" / "recent.json").stat().st_size)
    assert max(sizes[25:]) < 1.1 * max(sizes[:25])
    assert len(FeatureStore.open(tmp_path / "s")) == 50


def test_a_reader_never_mixes_two_manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delf_jax.manifest_files.MOST_RECENT", 1)
    with writer(tmp_path / "s") as store:
        numbers = iter(range(99))

        def append() -> None:
            store.append([photo(f"/{next(numbers)}.jpg", count=0)])

        append()
        read = Folder.read

        def overtaken(self: Folder, name: str) -> bytes:
            data = read(self, name)
            if name == "manifest.json" and overtakes:
                overtakes.pop()()
                append()
            return data

        for times in (1, 2):
            overtakes = [append] * times
            with monkeypatch.context() as patch:
                patch.setattr(Folder, "read", overtaken)
                found = FeatureStore.open(tmp_path / "s")
            assert len(found) == len(store)


def test_a_part_name_cannot_lead_out_of_the_store(tmp_path: Path) -> None:
    with writer(tmp_path / "s") as store:
        store.append([photo("/1.jpg")])
    recent = tmp_path / "s" / "recent.json"
    (part,) = json.loads(recent.read_bytes())["store"]["parts"]
    resealed(recent, parts=[part | {"name": "../../secret.parquet"}])
    with pytest.raises(StoreError, match="damaged"):
        FeatureStore.open(tmp_path / "s")


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
        "manifest.json",
        os.path.basename(memory.ls("/puts/s/parts", detail=False)[0]),
        "recent.json",
    ]


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


def test_an_object_store_is_read_past_its_cached_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder("memory://cached/s")
    folder.write("lease.json", b"new")
    monkeypatch.setattr(type(folder._filesystem), "info", lambda *_, **__: pytest.fail("it was looked up"))
    monkeypatch.setattr(type(folder._filesystem), "open", lambda *_, **__: pytest.fail("it was looked up"))
    assert folder.read("lease.json") == b"new"


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
        patch.setattr(Folder, "read", lambda self, name: self._filesystem.cat_file(f"{self._root}/{name}"))
        with pytest.raises(StoreError, match=r"timed out.*; check the disk or the connection"):
            writer("memory://flaky/s")
    assert [p.path for p in FeatureStore.open("memory://flaky/s")] == ["/1.jpg"]
