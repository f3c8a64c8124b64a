"""The packaged calibration: its maths on planted scores, and which photos it may use."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks import calibration, datasets, stranger_scores, strangers
from benchmarks.stranger_scores import Kind, Scores
from benchmarks.strangers import Stranger
from delf_jax.features import Domain, LocalFeatures
from delf_jax.loading import model_paths

HEAD = model_paths("delf-r50")[1]


def planted(count: int, *, fall: float, sizes: tuple[int, ...] = (60, 1000, 10_000), sites: int = 0) -> Scores:
    """Scores at or below t with the chance 10^(t + fall per tenfold size); with ``sites``, all of a site are alike."""
    rng = np.random.default_rng(0)
    draws = rng.uniform(size=count)
    if sites:
        draws = np.repeat(rng.uniform(size=sites), count // sites)
    names = np.arange(count) // (count // sites) if sites else np.arange(count)
    regions = np.array(strangers.REGIONS)[names % 4]
    values = np.log10(draws)[:, None] - fall * np.array([calibration.larger(size) for size in sizes])
    queries = tuple(Stranger(Path(f"site{name}/{i}.jpg")) for i, name in enumerate(names))
    return Scores(queries, regions, np.full(count, 100), sizes, values, np.full(values.shape, "a/b.jpg"))


def test_the_fall_with_the_size_is_found_and_rounded_up() -> None:
    assert calibration.larger(10_000) == 2
    assert calibration.larger(60) == 0
    assert calibration.fall_of(planted(4000, fall=0.62)) == pytest.approx(0.65)
    assert calibration.fall_of(planted(4000, fall=0.0)) == 0.0


def test_the_calibration_is_just_below_every_stranger_of_every_size() -> None:
    found = planted(3200, fall=0.6)
    made = calibration.calibration([found], Kind(), HEAD, 0.5)
    assert (made.photos, made.photos_tested) == (100, 10_000)
    # Nearly all of these independent strangers count: 3/3000 is 1 in 1000.
    assert made.strangers > 2500
    assert made.wrong_per_thousand == pytest.approx(3000 / made.strangers, abs=0.11)
    for place, size in enumerate(found.sizes):
        assert not (found.values[:, place] <= made.threshold(features=10, photos=size)).any()
    # The planted fall is steeper than the assumed one, so the largest index decides.
    lowest = found.values[:, 2].min() + 2 * 0.5
    assert lowest - 0.02 < made.thresholds[0] < lowest


def test_stated_bounds_hold_on_strangers_that_were_not_seen() -> None:
    rows = calibration.curve(planted(3200, fall=0.5), 0.5)
    assert [(row["stated"], row["photos"]) for row in rows[:4]] == [(2.0, 60), (2.0, 1000), (2.0, 10_000), (5.0, 60)]
    # 200 strangers, 100 in each half, prove 30 in 1000 at best.
    assert {row["stated"] for row in calibration.curve(planted(200, fall=0.5), 0.5)} == {50.0, 100.0}
    for row in rows:
        assert row["low"] <= row["observed"] <= row["high"]
        assert row["low"] <= row["stated"], row
    loosest = rows[-3]
    assert loosest["observed"] == pytest.approx(loosest["stated"], rel=0.25)
    with_left_out = calibration.left_out(planted(800, fall=0.5, sizes=(250, 4000)), planted(3200, fall=0.5), 0.5)
    assert {row["photos"] for row in with_left_out} == {250, 4000}
    assert all(row["low"] <= row["stated"] for row in with_left_out)


def test_strangers_of_one_site_count_as_few() -> None:
    alike = calibration.independence(planted(3200, fall=0.5, sites=32))
    # 100 photos of each of 32 sites are all the same, so they are worth 32.
    assert (alike["sites"], alike["effective"]) == (32, pytest.approx(32, rel=0.05))
    apart = planted(3200, fall=0.5)
    mixed = Scores(
        tuple(Stranger(Path(f"site{i % 32}/{i // 4}.jpg")) for i in range(3200)),
        apart.regions,
        apart.features,
        apart.sizes,
        apart.values,
        apart.surest,
    )
    assert calibration.independence(mixed)["effective"] > 1600


def test_the_plot_has_a_panel_for_each_size(tmp_path: Path) -> None:
    calibration.plot(tmp_path / "plot.svg", calibration.curve(planted(3200, fall=0.5), 0.5))
    text = (tmp_path / "plot.svg").read_text()
    assert all(f"{size} photos" in text for size in calibration.SIZES)
    assert "stated bound" in text


@pytest.mark.skipif("DELF_SHARED" not in os.environ, reason="needs the photos with ground truth")
def test_no_stranger_is_asked_by_the_accuracy_table() -> None:
    data = datasets.data_folder()
    regions = strangers.photos_by_region(data)
    photos = [photo for region in regions.values() for photo in region]
    assert len(photos) == len(set(photos))
    assert len(strangers.of_photos(photos)) >= 3000
    for experiment in (datasets.smvs(data), datasets.phototourism(data)):
        asked = {*experiment.known.queries, *(experiment.strangers.queries if experiment.strangers else ())}
        assert not asked & set(photos)
    sites = {region: {Stranger(photo).site for photo in chosen} for region, chosen in regions.items()}
    assert sum(map(len, sites.values())) == len(set().union(*sites.values()))


def test_the_halves_of_a_photo_share_its_features_and_its_domain() -> None:
    rng = np.random.default_rng(0)
    domain = Domain(10.0, 20.0, 390.0, 280.0, 50_000.0, 1.0)
    photo = LocalFeatures(
        keypoints=rng.uniform((10, 20), (390, 280), (300, 2)).astype(np.float32),
        scales=np.ones(300, np.float32),
        scores=np.arange(300, 0, -1).astype(np.float32),
        descriptors=np.ones((300, 4), np.float32),
        image_size=(300, 400),
        domain=domain,
    )
    left, right = strangers.half_of(photo, 1), strangers.half_of(photo, 2)
    assert len(left) + len(right) == 300
    assert left.keypoints[:, 0].max() < 199.5 < right.keypoints[:, 0].min()
    # 189.5 of 380 pixels are left.
    assert (left.domain.x0, left.domain.x1, left.domain.area) == (10.0, 199.5, pytest.approx(50_000 * 189.5 / 380))
    assert left.domain.area + right.domain.area == pytest.approx(50_000)
    assert strangers.seen(Stranger(Path()), photo) is photo
    upright = dataclasses.replace(photo, image_size=(400, 300), domain=None)
    assert strangers.half_of(upright, 1).domain == Domain(0.0, 0.0, 300.0, 199.5, 300 * 199.5, 1.0)


def test_a_photo_seen_again_is_another_query_each_time() -> None:
    rng = np.random.default_rng(0)
    descriptors = rng.standard_normal((300, 128)).astype(np.float32)
    photo = LocalFeatures(
        keypoints=rng.uniform(0, 300, (300, 2)).astype(np.float32),
        scales=np.ones(300, np.float32),
        scores=np.arange(300, 0, -1).astype(np.float32),
        descriptors=descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True),
        image_size=(300, 400),
    )
    views = [strangers.seen(Stranger(Path(), number, part), photo) for number, part in ((0, 3), (0, 4), (1, 3))]
    assert [len(view) for view in views] == [strangers.SEEN_AGAIN] * 3
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(views[one].descriptors - views[other].descriptors).max() > 0.1


def test_features_of_nothing_have_no_score() -> None:
    empty = np.full((2, 5), -1)
    values, surest = stranger_scores._verified(None, empty, [])  # type: ignore[arg-type]
    assert (values.tolist(), surest.tolist()) == ([np.inf, np.inf], [-1, -1])
