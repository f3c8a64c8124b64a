"""The shards of an index in processes on a Ray cluster: the same answers, also when processes die."""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import retrieval
from delf_cli.main import main
from delf_jax.errors import SearchIndexError
from delf_jax.features import LocalFeatures
from delf_jax.job import ray_session
from delf_jax.job.ray_session import Workers
from tests.retrieval.sift import sift_features

ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")

pytestmark = [
    pytest.mark.slow,
    # Of Ray's own making.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    # Ray forks its processes while JAX runs in this one.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

NAMES = ("graf1", "leuvenA", "box", "coffee", "camera")


@pytest.fixture(scope="module")
def photos(demo_photos: Path) -> dict[str, LocalFeatures]:
    return {name: sift_features(demo_photos / f"{name}.jpg", 150) for name in (*NAMES, "leuvenB", "graf3", "rocket")}


@pytest.fixture(scope="module")
def served(
    photos: dict[str, LocalFeatures], ray_workers: Workers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[retrieval.ShardedIndex]:
    path = tmp_path_factory.mktemp("shards") / "index"
    retrieval.ShardedIndex.build([(name, photos[name]) for name in NAMES], path, shards=2, backend="exact").close()
    with retrieval.ShardedIndex.open(path, on_ray=True, replicas=2, seconds=60) as index:
        yield index


def answer(index: retrieval.Index | retrieval.ShardedIndex, query: LocalFeatures) -> list[Any]:
    """Photo, inliers, confidence and score of every match, one after the other."""
    matches = index.search(query).matches
    return [value for match in matches for value in (match.image, match.inliers, match.log10_nfa, match.score)]


def same(answer: list[Any]) -> list[Any]:
    """Equal up to float32 rounding, in which programs of other processes may differ."""
    return [pytest.approx(value, rel=1e-5) if isinstance(value, float) else value for value in answer]


def processes(index: retrieval.ShardedIndex) -> dict[str, set[int]]:
    """The processes that answer for each shard, in as many turns as there are replicas."""
    found: dict[str, set[int]] = {name: set() for name in index.shards}
    for _ in range(2):
        for name, process in index._photos.ask("process").given.items():
            found[name].add(process)
    return found


def test_dead_processes_are_replaced_while_searching_goes_on(
    photos: dict[str, LocalFeatures], served: retrieval.ShardedIndex
) -> None:
    whole = retrieval.Index.build([(name, photos[name]) for name in NAMES], backend="exact")
    expected = answer(whole, photos["leuvenB"])
    assert answer(served, photos["leuvenB"]) == same(expected)
    before = processes(served)
    assert [len(replicas) for replicas in before.values()] == [2, 2]

    first, second = before
    os.kill(min(before[first]), signal.SIGKILL)
    for _ in range(3):
        found = served.search(photos["leuvenB"])
        assert (found.lost, [match.image for match in found.matches]) == ({}, expected[::4])

    for process in before[second]:
        os.kill(process, signal.SIGKILL)
    end = time.monotonic() + 60
    # On a quick machine the new processes may be there before the first question.
    while (found := served.search(photos["leuvenB"])).lost and time.monotonic() < end:
        assert found.lost.keys() == {second}
        assert len(found.matches) < len(NAMES)
        assert "being started again" in found.lost[second]
    assert not found.lost
    assert answer(served, photos["leuvenB"]) == same(expected)
    assert not processes(served)[second] & before[second]


def test_photos_are_added_while_queries_are_answered(
    photos: dict[str, LocalFeatures], served: retrieval.ShardedIndex
) -> None:
    answers: list[list[Any]] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            answers.append(answer(served, photos["graf3"]))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        served.add([("rocket", photos["rocket"]), ("graf3", photos["graf3"])])
        served.remove(["rocket"])
    finally:
        done.set()
        asking.join()
    whole = retrieval.Index.build([(name, photos[name]) for name in (*NAMES, "graf3")], backend="exact")
    assert answer(served, photos["graf3"]) == same(answer(whole, photos["graf3"]))
    assert answers
    assert all(found[0] in ("graf1", "graf3") for found in answers)
    again = retrieval.ShardedIndex.open(served.path)
    assert answer(again, photos["graf3"]) == same(answer(served, photos["graf3"]))

    again.remove(["graf3"])
    # As a process that died does, and was started again.
    ray.get([replicas[0].open.remote() for replicas in served._servers._actors.values()])
    assert answer(served, photos["graf3"]) == same(answer(again, photos["graf3"]))
    assert len(served) == len(NAMES)


def test_the_command_searches_on_a_cluster(
    ray_workers: Workers,
    tiny_model: Path,
    demo_photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ray_session, "connected", lambda address: contextlib.nullcontext())

    def run(*args: object) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert main([*map(str, args), "--json"]) == 0
        output = capsys.readouterr()
        assert output.err == ""
        return [json.loads(line) for line in output.out.splitlines()]

    photos = [demo_photos / f"{name}.jpg" for name in ("graf1", "box")]
    small = ("--model", tiny_model, "--max-side", "240", "--max-features", "100", "--scales", "1.0")
    run("extract", *photos, "--out", tmp_path / "store", *small)
    run("index", tmp_path / "store", "--out", tmp_path / "index", "--shards", "2", "--backend", "exact")
    query = ("search", tmp_path / "index", demo_photos / "graf3.jpg")
    assert run(*query, "--ray", "auto") == run(*query)


def test_where_there_is_no_cluster(served: retrieval.ShardedIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SearchIndexError, match="0 replicas hold no shard"):
        retrieval.ShardedIndex.open(served.path, on_ray=True, replicas=0)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(SearchIndexError, match=r"not connected.*ray_session\.connected"):
        retrieval.ShardedIndex.open(served.path, on_ray=True)
