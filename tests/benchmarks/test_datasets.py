"""The benchmark's collections are what their descriptions say."""

from collections import Counter
from pathlib import Path

import pytest

from benchmarks import datasets


def test_every_building_has_its_own_reference_and_those_of_its_group(shared_data: Path) -> None:
    dataset = datasets.buildings(shared_data)
    names = [{dataset.database[i].stem for i in right} for right in dataset.relevant]
    assert len(dataset.queries) == 60
    assert len(dataset.database) == 60 + 128 + 300
    assert all(query.stem in right for query, right in zip(dataset.queries, names))
    by_query = dict(zip((query.stem for query in dataset.queries), names))
    assert by_query["039"] == {"007", "008", "009", "039", "040"}
    assert by_query["049"] == {"001", "002", "049"}
    assert by_query["060"] == {"060"}
    assert all(dataset.database[i].parent.name == "Reference" for right in dataset.relevant for i in right)


def test_strangers_are_in_no_photo_of_their_database(shared_data: Path) -> None:
    dataset = datasets.strangers(shared_data)
    assert len(dataset.queries) == 128
    assert len(dataset.database) == 360
    assert not set(dataset.queries) & set(dataset.database)
    assert not any(dataset.relevant)


def test_landmark_distractors_are_balanced_and_none_is_of_san_francisco(shared_data: Path) -> None:
    photos = datasets.landmark_distractors(shared_data)
    classes = Counter(photo.parent.name for photo in photos)
    assert len(set(photos)) == 300
    assert len(classes) == 28
    assert set(classes.values()) <= {10, 11}
    assert {name.split("__")[0] for name in classes} == {"indian_monuments", "porto", "seven_wonders", "vn_landmarks"}


def test_groups_share_no_member(shared_data: Path) -> None:
    groups = set(datasets.same_building(shared_data).values())
    members = [i for group in groups for i in group]
    assert len(members) == len(set(members))
    assert all(len(group) > 1 for group in groups)


def test_missing_data_folder_says_how_to_name_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--data"):
        datasets.data_folder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="--data"):
        datasets.strangers(tmp_path)


def test_a_folder_is_read_by_its_places(tmp_path: Path) -> None:
    for name in ("queries/a/1.jpg", "queries/b/2.jpg", "queries/c.jpg", "references/a/x.png", "references/a/y.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "references/c.png").touch()
    experiment = datasets.experiment(str(tmp_path), None)
    assert [photo.name for photo in experiment.known.queries] == ["1.jpg", "c.jpg"]
    names = [{experiment.known.database[i].name for i in right} for right in experiment.known.relevant]
    assert names == [{"x.png", "y.png"}, {"c.png"}]
    assert experiment.strangers is not None
    assert [photo.name for photo in experiment.strangers.queries] == ["2.jpg"]
    with pytest.raises(FileNotFoundError, match="queries"):
        datasets.experiment(str(tmp_path / "references"), None)
    with pytest.raises(FileNotFoundError, match="smvs"):
        datasets.experiment(str(tmp_path / "nowhere"), None)


def test_photos_asked_among_themselves_leave_out_themselves_and_what_overlaps() -> None:
    photos = [Path(str(i)) for i in range(5)]
    labels = ["tower", "tower", "gate", "gate", "bridge"]
    dataset = datasets.among_themselves(
        "toy", photos, labels, others=[Path("other")], overlapping=lambda a, b: {a, b} == {"tower", "gate"}
    )
    assert dataset.relevant[0] == {1}
    assert dataset.ignored_by(0) == {0, 2, 3}
    # The bridge has no other photo: it asks nothing.
    assert len(dataset.queries) == 4
    assert len(dataset.database) == 6


def test_phototourism_has_five_landmarks(shared_data: Path) -> None:
    experiment = datasets.experiment("phototourism", shared_data)
    sizes = Counter(len(right) + 1 for right in experiment.known.relevant)
    assert sizes == {10: 10, 4: 4, 5: 5, 2: 4}
