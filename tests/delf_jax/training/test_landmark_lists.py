"""The three published kinds of list, photos in trees or flat, and places by distance."""

from pathlib import Path

import numpy as np
import pytest

from delf_jax.errors import TrainingDataError
from delf_jax.training.landmark_lists import EARTH_RADIUS, from_csv, haversine, places

METRES_A_DEGREE = EARTH_RADIUS * np.pi / 180


def write_photos(root: Path, ids: list[str], *, tree: bool) -> Path:
    for name in ids:
        folder = root / name[0] / name[1] / name[2] if tree else root
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.jpg").write_bytes(b"photo")
    return root


def write_list(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("tree", [True, False])
def test_a_row_a_photo_and_absent_ones_are_counted(tmp_path: Path, tree: bool) -> None:
    photos = write_photos(tmp_path / "photos", ["0a1f", "0a1e", "ffff"], tree=tree)
    listed = write_list(
        tmp_path / "train.csv",
        "id,url,landmark_id",
        "ffff,http://example.org/a,7",
        '0a1f,"http://example.org/b,c",10',
        "0a1e,,10",
        "0a1e,,10",
        "dead,http://example.org/gone,7",
    )
    samples = from_csv(listed, photos)
    assert list(samples.classes) == ["10", "7"]
    prefix = "0/a/1/" if tree else ""
    assert list(samples.names) == [f"{prefix}0a1e.jpg", f"{prefix}0a1f.jpg", "f/f/f/ffff.jpg" if tree else "ffff.jpg"]
    np.testing.assert_array_equal(samples.labels, [0, 0, 1])
    assert list(samples.absent) == ["dead"]
    assert Path(samples.path(0)).is_file()


def test_a_row_a_landmark(tmp_path: Path) -> None:
    # A landmark of v2-clean can have thousands of photos: its row is longer than csv readers like.
    many = [f"{i:016x}" for i in range(20_000)]
    photos = write_photos(tmp_path / "photos", ["0a1f", "0a1e", many[3]], tree=True)
    listed = write_list(tmp_path / "train_clean.csv", "landmark_id,images", "1,0a1f", f"2,{' '.join(many)} 0a1e")
    samples = from_csv(listed, photos)
    assert dict(zip(samples.names, samples.labels.tolist())) == {
        "0/a/1/0a1f.jpg": 0,
        "0/a/1/0a1e.jpg": 1,
        f"0/0/0/{many[3]}.jpg": 1,
    }
    assert len(samples.absent) == 19_999


def test_haversine_by_hand() -> None:
    start = np.array([[0.0, 0.0], [0.0, 179.5], [60.0, 10.0], [90.0, 0.0]])
    metres = haversine(start, np.array([[1.0, 0.0], [0.0, -179.5], [60.0, 11.0], [-90.0, 77.0]]))
    np.testing.assert_allclose(metres[:2], METRES_A_DEGREE, rtol=1e-12)
    # Along a circle of latitude of 60 degrees the way is half as long, and the great circle a little shorter still.
    assert 0.4999 * METRES_A_DEGREE < metres[2] < 0.5 * METRES_A_DEGREE
    np.testing.assert_allclose(metres[3], np.pi * EARTH_RADIUS)


def north(metres: float, latitude: float = 48.0, longitude: float = 2.0) -> list[float]:
    return [latitude + metres / METRES_A_DEGREE, longitude]


def test_places_are_within_the_radius_of_a_landmarks_centre() -> None:
    landmarks = ["tower", "tower", "tower", "tower", "bridge", "bridge", "far", "tower"]
    positions = [north(-30), north(30), north(0), north(0), north(60), north(90), north(5000), [np.nan, np.nan]]
    # The bridge's centre is 75 m north of the tower's.
    assert places(landmarks, np.array(positions), radius=50) == [*["tower"] * 4, "bridge", "bridge", "far", None]
    # One place of both: the larger landmark names it, and its radius reaches only one photo of the smaller.
    assert places(landmarks, np.array(positions), radius=80) == [*["tower"] * 4, "tower", None, "far", None]
    # A photo belongs to where it was taken, not to what it is called.
    misnamed = places(["tower", "tower", "bridge", "bridge"], np.array([north(0), *[north(500)] * 3]), radius=245)
    assert misnamed == [None, "bridge", "bridge", "bridge"]


def test_places_across_the_date_line_equal_places_anywhere() -> None:
    offsets = np.random.default_rng(0).normal(0, 0.0005, (60, 2))
    landmarks = [f"{i % 3}" for i in range(60)]
    anchors = np.array([[0.0, 0.0], [0.0, 0.01], [0.0, 0.02]])[np.arange(60) % 3]
    here = places(landmarks, anchors + offsets + [0, 20], radius=100)
    there = anchors + offsets + [0, 179.985]
    there[:, 1] = (there[:, 1] + 180) % 360 - 180
    assert np.ptp(there[:, 1]) > 300
    assert places(landmarks, there, radius=100) == here
    assert None in here
    assert len(set(here)) == 4


def test_lists_with_positions(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", ["aaaa", "bbbb", "cccc"], tree=False)
    listed = write_list(
        tmp_path / "gps.csv",
        "id,landmark_id,latitude,longitude",
        "aaaa,1,48.0,2.0",
        "bbbb,2,48.0001,2.0",
        "cccc,3,,",
        "dddd,4,-10,100",
    )
    assert len(from_csv(listed, photos).classes) == 3
    samples = from_csv(listed, photos, positives="radius:100")
    assert list(samples.names) == ["aaaa.jpg", "bbbb.jpg"]
    np.testing.assert_array_equal(samples.labels, [0, 0])
    assert list(samples.absent) == ["dddd"]


def test_faulty_lists_are_refused(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", ["0a1f"], tree=True)
    good = write_list(tmp_path / "good.csv", "id,url,landmark_id", "0a1f,,1")
    for listed, positives, message in (
        (tmp_path / "none.csv", "landmark", "cannot be read"),
        (tmp_path, "landmark", "cannot be read"),
        (write_list(tmp_path / "columns.csv", "file,label", "a,b"), "landmark", "has columns file, label"),
        (write_list(tmp_path / "away.csv", "id,landmark_id", "beef,1"), "landmark", "none of its 1 photos"),
        (write_list(tmp_path / "out.csv", "id,landmark_id", "../0a1f,1"), "landmark", "not an id of a photo"),
        (write_list(tmp_path / "text.csv", "id,landmark_id,latitude,longitude", "0a1f,1,north,2"), "radius:9", "list"),
        (good, "radius:100", "latitude and longitude"),
        (good, "radius:-3", "radius:METRES"),
        (good, "place", "radius:METRES"),
    ):
        with pytest.raises(TrainingDataError, match=message) as refused:
            from_csv(listed, photos, positives=positives)
        assert "\n" not in str(refused.value)
