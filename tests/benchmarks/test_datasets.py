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
