"""The benchmark of verification: what it plants is there to be found, and its rows say who found it."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import planted, verification, verifiers
from benchmarks.verification import Case, Options, main, measure, summary


@pytest.mark.parametrize("model", ["similarity", "affine", "homography"])
def test_planted_matches_follow_the_planted_transform(model) -> None:
    problem = planted.plant(model, candidates=40, matches=80, outliers=0.6, seed=0)
    np.testing.assert_array_equal(problem.true.sum(axis=1), 32)
    apart = np.linalg.norm(planted.apply(problem.transform, problem.src) - problem.dst, axis=-1)
    # Coordinates are off by a normal error whose deviation lies between 1 and 3 pixels.
    deviation = np.sqrt((apart**2 * problem.true).sum(axis=1) / 32 / 2)
    assert 0.7 < deviation.min() < 1.4
    assert 2.4 < deviation.max() < 4
    assert (apart[~problem.true] > verifiers.THRESHOLD).mean() > 0.99
    # The features' scales tell how much the transform enlarges where they lie, but for half an octave.
    scale = problem.src_scales / problem.dst_scales
    enlarges = np.sqrt(np.abs(np.linalg.det(problem.transform[:, :2, :2])))[:, None]
    if model != "homography":
        assert np.abs(np.log2(scale / enlarges)[problem.true]).max() <= 0.251
    inside = (problem.src >= 0) & (problem.src < [planted.WIDTH, planted.HEIGHT])
    assert inside.all()


def test_the_planted_answer_is_right_and_others_are_not() -> None:
    problem = planted.plant("affine", candidates=3, matches=50, outliers=0.5, seed=1)
    transform = problem.transform.copy()
    transform[1, 0, 2] += 6
    transform[2] = np.nan
    inliers = problem.true.copy()
    inliers[2] = False
    found = planted.judge(problem, transform, inliers)
    assert found.success.tolist() == [True, False, False]
    np.testing.assert_allclose(found.error, [0, 6, np.inf], atol=1e-9)
    assert found.recall.tolist() == [1, 1, 0]


@pytest.mark.parametrize("model", ["similarity", "affine", "homography"])
def test_every_peer_that_is_here_finds_easy_transforms(model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifiers, "OFFICIAL_TRIALS", 50)
    problem = planted.plant(model, candidates=3, matches=50, outliers=0.1, seed=2)
    found, missing = verifiers.peers(model)
    assert "OpenCV RANSAC" in found
    assert all("pip install delf-jax[peers]" in reason for reason in missing.values())
    for name, verifier in found.items():
        judged = planted.judge(problem, *verifier.read(problem, verifier.run(problem)))
        assert judged.success.all(), name
        assert judged.recall.mean() > 0.9, name


def test_threads_keep_the_order_of_the_candidates() -> None:
    problem = planted.plant("affine", candidates=5, matches=50, outliers=0.3, seed=3)
    verifier = verifiers.peers("affine")[0]["OpenCV RANSAC"]
    answer = verifier.read(problem, verifier.run(problem))
    for i in range(5):
        alone, inliers = cv2.estimateAffine2D(problem.src[i], problem.dst[i], ransacReprojThreshold=10.0)
        np.testing.assert_allclose(answer.transform[i, :2], alone)
        np.testing.assert_array_equal(answer.inliers[i], inliers[:, 0] > 0)


@pytest.mark.slow
def test_rows_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(verification, "cases", lambda full: [Case("affine", 100, 50, 0.5)])
    out = tmp_path / "verification.json"
    rows = main(Options(json=out, problems=1, rounds=1))
    kept = json.loads(out.read_text())
    assert kept["benchmark"] == "verification"
    assert [row["method"] for row in kept["rows"]] == [row["method"] for row in rows]
    ours = rows[0]
    assert ours["method"] == "delf-jax"
    assert ours["success_percent"] > 95
    assert ours["ms_quartiles"][0] <= ours["ms"] <= ours["ms_quartiles"][1]
    assert "times as fast as OpenCV's fastest (geometric mean of 1 cases" in capsys.readouterr().out


def test_absent_peers_have_rows_that_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(model: str) -> tuple[dict[str, verifiers.Verifier], dict[str, str]]:
        return {}, {"pycolmap": "pycolmap is not installed"}

    def nothing(problem: planted.Problem) -> None:
        return None

    def read(problem: planted.Problem, found: None) -> verifiers.Answer:
        return verifiers.Answer(np.full((1, 3, 3), np.nan), np.zeros((1, 50), bool))

    monkeypatch.setattr(verifiers, "peers", absent)
    monkeypatch.setattr(verifiers, "ours", lambda model, scales: verifiers.Verifier(nothing, read))
    rows = measure(Case("affine", 1, 50, 0.5), problems=1, rounds=1)
    assert rows[-1]["skipped"] == "pycolmap is not installed"
    assert rows[0]["success_percent"] == 0
    assert rows[0]["error_px"] is None
    assert "skipped: pycolmap is not installed" in verification.table(rows)


def test_summary_takes_the_fastest_opencv() -> None:
    case = {"model": "affine", "candidates": 100, "matches": 200, "outliers": 0.5}
    times = {"delf-jax": 2.0, "OpenCV RANSAC": 8.0, "OpenCV USAC_MAGSAC": 4.0, "scikit-image": 4000.0}
    rows = [{**case, "method": name, "ms": ms} for name, ms in times.items()]
    rows += [{**case, "outliers": 0.9, "method": name, "ms": ms} for name, ms in {**times, "delf-jax": 0.5}.items()]
    lines = summary(rows)
    assert lines[0].startswith("affine, 100 candidates: 4 times as fast as OpenCV's fastest")
    assert lines[1].startswith("affine, 100 candidates: 4e+03 times as fast as scikit-image")
