"""The packaged calibration: its maths on planted scores, and which photos it may use."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks import calibration, datasets, strangers
from benchmarks.stranger_scores import Scores
from benchmarks.strangers import Stranger
from delf_jax.errors import DelfError
from delf_jax.features import Domain, LocalFeatures
from delf_jax.loading import model_paths

HEAD = model_paths("delf-r50")[1]


def planted(count: int, *, sites: int = 0) -> Scores:
    """Scores at or below t with the chance 10^t, the same in all regions; with ``sites``, all of a site are alike."""
    rng = np.random.default_rng(0)
    ranks = np.stack([rng.permutation(count // 4) for _ in strangers.REGIONS], axis=1).ravel()
    even = (ranks + rng.uniform(size=count)) / (count // 4)
    draws = np.repeat(rng.uniform(size=sites), count // sites) if sites else even
    names = np.arange(count) // (count // sites) if sites else np.arange(count)
    regions = np.array(strangers.REGIONS)[np.arange(count) % 4]
    queries = tuple(Stranger(Path(f"site{name}/{i}.jpg")) for i, name in enumerate(names))
    return Scores(queries, regions, np.full(count, 100), np.log10(draws), (Path("a/b.jpg"),) * count)


def test_the_calibration_keeps_to_its_bound() -> None:
    found = planted(3200)
    made = calibration.calibration(found, HEAD)
    assert (made.wrong_per_thousand, made.photos, made.verified, made.photos_tested) == (20, 60, 60, 60)
    assert made.features_tested == 100
    # Nearly all of these independent strangers count. At 20 in 1000 about 50 of 3200 may be accepted.
    assert made.strangers > 2500
    assert 35 <= (found.values <= made.thresholds[0]).sum() <= 51
    with pytest.raises(DelfError, match="32 independent strangers cannot prove 20 wrong in 1000"):
        calibration.calibration(planted(3200, sites=32), HEAD)


def test_stated_bounds_hold_on_strangers_that_were_not_seen() -> None:
    rows = calibration.curve(planted(3200))
    assert [row["stated"] for row in rows] == [2.0, 5.0, 10.0, 20.0, 50.0, 100.0]
    for row in rows:
        assert row["observed"] <= row["stated"], row
    assert rows[-1]["observed"] == pytest.approx(rows[-1]["stated"], rel=0.25)
    # 200 strangers, 100 in each half, prove 30 in 1000 at best.
    assert [row["stated"] for row in calibration.curve(planted(200))] == [50.0, 100.0]


def test_strangers_of_one_site_count_as_few() -> None:
    alike = calibration.independence(planted(3200, sites=32))
    # 100 photos of each of 32 sites are all the same, so they are worth 32.
    assert (alike["sites"], alike["effective"]) == (32, pytest.approx(32, abs=1))
    # All that region and index have in common counts too: ten times as many of one region come to any threshold.
    even = planted(3200)
    shifted = dataclasses.replace(even, values=even.values - (even.regions == strangers.REGIONS[0]))
    assert calibration.independence(shifted)["effective"] < 50
    mixed = tuple(Stranger(Path(f"site{i % 32}/{i // 4}.jpg")) for i in range(3200))
    assert calibration.independence(dataclasses.replace(planted(3200), strangers=mixed))["effective"] > 1600


def test_the_tail_of_the_strangers_and_their_numbers_of_features_are_stated() -> None:
    found = planted(3200)
    # 10^t of them come to t, by construction: 320 to -1.
    assert calibration.tail(found)["slope below"]["0"] == pytest.approx(1.0, abs=0.05)
    row = calibration.by_features(dataclasses.replace(found, features=np.repeat((59, 60, 149, 356), 800)))
    assert row["most"] == 356
    assert [(group["from"], group["strangers"]) for group in row["groups"]] == [
        (1, 800), (60, 800), (104, 800), (150, 800)
    ]  # fmt: skip
    assert sum(group["at -1"] for group in row["groups"]) == pytest.approx(320, abs=4)


def test_the_plot_shows_stated_and_observed_rates(tmp_path: Path) -> None:
    calibration.plot(tmp_path / "plot.svg", calibration.curve(planted(3200)))
    text = (tmp_path / "plot.svg").read_text()
    assert all(name in text for name in ("stated bound", "observed", "95 % interval"))


@pytest.mark.skipif("DELF_SHARED" not in os.environ, reason="needs the photos with ground truth")
def test_no_stranger_is_asked_by_the_accuracy_table() -> None:
    data = datasets.data_folder()
    regions = strangers.photos_by_region(data)
    photos = [photo for region in regions.values() for photo in region]
    assert len(photos) == len(set(photos))
    assert len(photos) * len(strangers.PARTS) >= 1300
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
    left, right = strangers.part_of(photo, 1), strangers.part_of(photo, 2)
    assert len(left) + len(right) == 300
    assert left.keypoints[:, 0].max() < 199.5 < right.keypoints[:, 0].min()
    # 189.5 of 380 pixels are left.
    assert (left.domain.x0, left.domain.x1, left.domain.area) == (10.0, 199.5, pytest.approx(50_000 * 189.5 / 380))
    assert left.domain.area + right.domain.area == pytest.approx(50_000)
    assert strangers.part_of(photo, 0) is photo
    upright = dataclasses.replace(photo, image_size=(400, 300), domain=None)
    assert strangers.part_of(upright, 1).domain == Domain(0.0, 0.0, 300.0, 199.5, 300 * 199.5, 1.0)
