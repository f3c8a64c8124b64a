"""The commit log: every commit is whole and made once, a reader finds one state, and old commits go away."""

from collections.abc import Callable
from pathlib import Path

import pytest

from delf_jax.errors import StoreError
from delf_jax.files.folder import Folder
from delf_jax.settings import ExtractionSettings
from delf_jax.store.commit_log import CommitLog
from delf_jax.store.manifest import Manifest, Part
from delf_jax.store.reader import FeatureStore
from tests.delf_jax.store.store_samples import changed, commits, photo, snapshots, writer


def with_parts(count: int) -> Manifest:
    parts = tuple(Part(f"part-{number:06d}-0123456789ab.parquet", 1, 9, "0" * 64) for number in range(count))
    return Manifest(ExtractionSettings(), "f" * 64, 8, parts=parts, next_part=count)


def opened(folder: Folder) -> CommitLog:
    log = CommitLog(folder)
    log.read()
    return log


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_of_two_writers_with_the_same_number_one_fails_and_overwrites_nothing(place: str, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "s" if place == "disk" else f"memory://{tmp_path.name}/s")
    folder.make()
    CommitLog(folder).commit(with_parts(0))
    first, second = opened(folder), opened(folder)
    second.commit(with_parts(2))
    with pytest.raises(StoreError, match="another writer has committed to it while this one was suspended; run the"):
        first.commit(with_parts(1))
    assert CommitLog(folder).read() == with_parts(2)


@pytest.mark.parametrize("snapshot", [False, True])
def test_a_writer_whose_number_is_free_again_fails_too(snapshot: bool, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    CommitLog(folder).commit(with_parts(0))
    first, second = opened(folder), opened(folder)
    for count in range(1, 15):
        second.commit(with_parts(count))
    before = commits(tmp_path)
    assert not (tmp_path / "commits" / "000000000001.json").exists()
    with pytest.raises(StoreError, match="another writer has committed"):
        (first.commit_snapshot if snapshot else first.commit)(with_parts(1))
    assert commits(tmp_path) == before
    assert CommitLog(folder).read() == with_parts(14)


def test_a_request_that_was_sent_twice_is_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path)
    create = Folder.create

    def twice(self: Folder, name: str, data: bytes) -> None:
        create(self, name, data)
        create(self, name, data)

    monkeypatch.setattr(Folder, "create", twice)
    CommitLog(folder).commit(with_parts(1))
    assert CommitLog(folder).read() == with_parts(1)


def test_commits_stay_few_and_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delf_jax.store.commit_log.MOST_CHANGES", 12)
    folder = Folder(tmp_path)
    log, sizes = CommitLog(folder), []
    for count in range(60):
        log.commit(with_parts(count))
        sizes.append(commits(tmp_path)[-1].stat().st_size)
        assert len(commits(tmp_path)) <= 9
        assert len(snapshots(tmp_path)) <= 2
    assert max(sizes[30:]) < 1.1 * max(sizes[:30])
    assert CommitLog(folder).read() == with_parts(59)


@pytest.mark.parametrize(("times", "expected"), [(1, 0), (30, 60)])
def test_a_reader_that_is_overtaken_finds_one_state(
    times: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delf_jax.store.commit_log.MOST_CHANGES", 1)
    folder = Folder(tmp_path)
    log, count = CommitLog(folder), 0
    log.commit(with_parts(0))
    read = Folder.read
    overtakes = [times, times]

    def overtaken(self: Folder, name: str) -> bytes:
        nonlocal count
        if name.startswith("commits/") and overtakes:
            for _ in range(overtakes.pop()):
                count += 1
                log.commit(with_parts(count))
        return read(self, name)

    monkeypatch.setattr(Folder, "read", overtaken)
    assert CommitLog(folder).read() == with_parts(expected)


@pytest.mark.parametrize("done", [False, True])
def test_killed_at_any_write_a_store_has_every_part_once(
    done: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("delf_jax.store.commit_log.MOST_CHANGES", 2)
    monkeypatch.setattr("delf_jax.store.commit_log._KEPT", 0)
    monkeypatch.setattr("os.fsync", lambda _: None)
    photos = [photo(f"/{number % 3}.jpg", count=1, seed=number) for number in range(5)]
    left = 0

    def killed(call: Callable[..., None]) -> Callable[..., None]:
        def call_or_die(self: Folder, name: str, *data: bytes) -> None:
            nonlocal left
            if name == "lease.json":
                return call(self, name, *data)
            left -= 1
            if left or done:
                call(self, name, *data)
            if not left:
                raise KeyboardInterrupt

        return call_or_die

    for name in ("write", "create", "remove"):
        monkeypatch.setattr(Folder, name, killed(getattr(Folder, name)))
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
        assert len(read) == 3
        assert read.check() == []
    assert writes > 2 + 2 * len(photos)


@pytest.mark.parametrize("files", [commits, snapshots])
def test_a_damaged_or_newer_commit_is_refused(files: Callable[[Path], list[Path]], tmp_path: Path) -> None:
    with writer(tmp_path / "s") as store:
        store.append([photo("/1.jpg")])
    commit = files(tmp_path / "s")[-1]
    good = commit.read_text()
    changed(commit, version=4)
    newer = commit.read_text()
    damaged = f"{commit.name} is damaged; `delf-jax check .* --repair` makes it again"
    for bad, words in (
        (newer, r"a newer delf-jax wrote it \(format 4\); update"),
        (good.replace('"version": 3', '"version": 4'), damaged),
        (good.replace('"next_part": ', '"next_part": 1'), damaged),
        (good.replace("feature store", "feature stork"), damaged),
        (good[:-9], damaged),
        ("[]", damaged),
        ("[" * 100_000, damaged),
    ):
        commit.write_text(bad)
        for open_it in (FeatureStore.open, writer):
            with pytest.raises(StoreError, match=words):
                open_it(tmp_path / "s")


@pytest.mark.parametrize(
    "change",
    [
        {"parts": [{"name": "../../secret.parquet", "rows": 1, "size": 1, "sha256": "", "superseded": []}]},
        {
            "parts": [
                {"name": "part-000000-0123456789ab.parquet", "rows": 1, "size": 1, "sha256": "", "superseded": [1]}
            ]
        },
        {"parts": 3},
        {"superseded": [[7, [0]]]},
        {"snapshot": "../../secret.json"},
        {"snapshot": 0},
        {"next_part": -1},
    ],
)
def test_a_commit_that_cannot_be_right_is_damaged(change: dict[str, object], tmp_path: Path) -> None:
    with writer(tmp_path / "s") as store:
        store.append([photo("/1.jpg")])
    changed(commits(tmp_path / "s")[1], **change)
    with pytest.raises(StoreError, match=r"000000000001\.json is damaged"):
        FeatureStore.open(tmp_path / "s")
