"""The benchmark of search: its recall, its choices and its rows, on a few descriptors."""

import json
from pathlib import Path

import numpy as np
import pytest

import delf_jax
from benchmarks import search, search_descriptors, search_query, searchers
from benchmarks.errors import PeerMissing
from benchmarks.searchers import Built, Method
from delf_jax.features import LocalFeatures


def unit(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, 16)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def planted(name: str, ours: bool, found: dict[str, int], default: str | None = None) -> Method:
    """A method that finds the first so many of the true neighbours at each setting."""

    def build(rows: np.ndarray) -> Built:
        state = {"found": 0}

        def run(queries: np.ndarray, k: int) -> np.ndarray:
            ids = np.argsort(-(queries @ rows.T), axis=1)[:, :k]
            return np.where(np.arange(k) < state["found"], ids, -1)

        uses = {setting: lambda count=count: state.update(found=count) for setting, count in found.items()}
        return Built(run, uses, default)

    return Method(name, ours, build)


def absent(rows: np.ndarray) -> Built:
    raise PeerMissing("faiss is not installed; pip install delf-jax[peers]")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NEIGHBOURS": 20, "FEWER": 5, "BATCH": 30, "SINGLES": 4}.items():
        monkeypatch.setattr(search, name, value)


def test_turns_take_our_default_and_what_is_good_enough_of_peers(small: None, tmp_path: Path) -> None:
    compared = [
        planted("ScaNN", True, {"low": 10, "middle": 18, "high": 20}, default="middle"),
        planted("faiss good", False, {"low": 10, "high": 19}),
        planted("faiss bad", False, {"low": 10}),
        Method("faiss absent", False, absent),
    ]
    rows = search.neighbours(unit(300, 0), unit(60, 1), compared, rounds=1)
    curve = {
        (row["method"], row["setting"]): row["recall20"]
        for row in rows
        if row["part"] == "curve" and "ms" not in row and "setting" in row
    }
    assert curve == {
        ("ScaNN", "low"): 0.5,
        ("ScaNN", "middle"): 0.9,
        ("ScaNN", "high"): 1.0,
        ("faiss good", "low"): 0.5,
        ("faiss good", "high"): 0.95,
        ("faiss bad", "low"): 0.5,
    }
    for part, times in (("batch", 2), ("single", 4)):
        turns = [row for row in rows if row["part"] == part]
        assert [(row["method"], row["setting"]) for row in turns] == [("ScaNN", "middle"), ("faiss good", "high")]
        assert all(row["times"] == times for row in turns)
        assert all(row["ms_quartiles"][0] <= row["ms"] <= row["ms_quartiles"][1] for row in turns)
    assert "faiss absent: skipped: faiss is not installed" in search.table(rows)
    search.draw(tmp_path / "plot.svg", rows)
    assert "faiss good" in (tmp_path / "plot.svg").read_text()


def test_summary_takes_the_quickest_peer_that_holds_half_our_memory_or_more() -> None:
    def row(method: str, ms: float, memory: float) -> dict:
        return {
            "part": "batch",
            "method": method,
            "ours": method == "ScaNN",
            "ms": ms,
            "bytes_per_descriptor": memory,
            "recall60": 0.95,
        }

    rows = [row("ScaNN", 10.0, 300), row("small", 5.0, 149), row("large", 20.0, 150), row("larger", 30.0, 600)]
    assert search.summary(rows) == ["1000 queries at once: 2.00 times as fast as large, recall 0.950 and 0.950"]


# Eight-bit codes and rotations take long to train where cores are shared.
QUICK = [m for m in searchers.methods(3000, full=True) if m.name != "faiss IVF-PQ" and "OPQ" not in m.name]


@pytest.mark.parametrize("method", QUICK, ids=lambda method: method.name)
def test_every_method_finds_the_neighbours(method: Method) -> None:
    if not method.ours:
        pytest.importorskip("faiss")
    rows = np.repeat(unit(3000, 0), 8, axis=1) / np.sqrt(8)
    built, cost = searchers.measured_build(method, rows.astype(np.float32))
    list(built.settings.values())[-1]()
    found = built.search(rows[:50].astype(np.float32), 10)
    assert found.shape == (50, 10)
    assert np.mean(found[:, 0] == np.arange(50)) > 0.9
    assert cost["build_s"] > 0


def test_views_repeat_and_queries_are_of_other_views(tmp_path: Path) -> None:
    views = search_descriptors.choose_views(5 * search_descriptors.PLACES, tmp_path)
    assert "packaged photos" in views.source
    assert len(views.indexed) == 5
    assert not set(views.indexed) & set(views.asking)
    assert views == search_descriptors.choose_views(5 * search_descriptors.PLACES, tmp_path)


def test_features_of_views_show_the_same_in_other_views(tmp_path: Path, tiny_model: Path) -> None:
    extract = search_descriptors.PlaceFeatures(str(tiny_model))
    views = search_descriptors.choose_views(1, tmp_path).indexed
    features = extract.cached(views, tmp_path / "cache")[0]
    assert len(features) == search_descriptors.PLACES
    assert np.all(np.diff(features.scores) <= 0)
    np.testing.assert_allclose(np.linalg.norm(features.descriptors.astype(np.float32), axis=1), 1, atol=2e-3)
    assert features.keypoints.min() > 0
    assert features.keypoints.max() < search_descriptors.SIZE - 1
    again = extract.cached(views, tmp_path / "cache")[0]
    np.testing.assert_array_equal(again.descriptors, features.descriptors)
    few = search_descriptors.some_of_each([features, again], 7)
    assert few.shape == (7, features.descriptors.shape[1])


def test_synthetic_photos_share_out_the_features_of_their_view() -> None:
    rng = np.random.default_rng(0)
    view = LocalFeatures(rng.normal(size=(12, 2)), np.ones(12), np.arange(12.0), unit(12, 0), (40, 40))
    photos = dict(search_query.synthetic_photos([view, view], 4))
    assert list(photos) == [f"photo {i:05d}" for i in range(6)]
    together = np.concatenate([photos[f"photo {i:05d}"].scores for i in range(3)])
    np.testing.assert_array_equal(np.sort(together), np.arange(12))


@pytest.mark.slow
def test_rows_of_a_run(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load = delf_jax.load
    small = {"max_side": 256, "max_features": 100, "scales": (1.0,)}
    monkeypatch.setattr(delf_jax, "load", lambda name, **options: load(tiny_model, **{**options, **small}))
    monkeypatch.setattr(search_descriptors, "ASKING", 4)
    monkeypatch.setattr(search_query, "LARGE", search_query.SMALL)
    monkeypatch.setattr(search, "PHOTOS", 1)
    monkeypatch.setattr(search, "methods", lambda count, full: QUICK[:3])
    for name, value in {"BATCH": 40, "SINGLES": 4}.items():
        monkeypatch.setattr(search, name, value)
    out = tmp_path / "search.json"
    rows = search.main(search.Options(json=out, descriptors=2400, rounds=1, data=tmp_path, cache=tmp_path / "cache"))
    kept = json.loads(out.read_text())
    assert len(kept["rows"]) == len(rows)
    stages = [row["stage"] for row in rows if row["part"] == "query"]
    assert stages == ["extract", *search_query.STAGES, *search_query.STAGES]
    assert "24 photos, 2400 features" in capsys.readouterr().out
