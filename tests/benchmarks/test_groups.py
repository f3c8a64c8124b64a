"""Copies and disguises are counted as planted."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import datasets, groups
from retrieval.grouping.examining import Edge, Examined
from retrieval.grouping.groups import Group, Grouping, Member


def test_copies_are_counted_by_their_disguise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    originals = []
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{seed}.png")
        originals.append(tmp_path / f"{seed}.png")
    sizes: dict[str, tuple[int, int]] = {}

    def planted(photos: list[Path], name: str, options: groups.Options) -> list[tuple[int, Grouping, int]]:
        for photo in photos:
            with Image.open(photo) as picture:
                sizes[photo.name] = picture.size
        by_name = {photo.name: str(photo) for photo in photos}
        first, half, grey, crop, mirrored = (
            by_name[name] for name in ("0.png", "000_half.png", "000_grey.png", "000_crop_70.png", "000_mirrored.png")
        )
        other, of_other = by_name["1.png"], by_name["001_jpeg_30.jpg"]
        box = np.zeros(4)
        # The second original is a copy of its own disguise, which is as good; the first one's crop is another view.
        members = [[(first, None), (half, first), (grey, first), (crop, None), (mirrored, first)]]
        members.append([(of_other, None), (other, of_other)])
        ends = [(first, half), (first, other)]
        edges = [Edge(a, b, 20, -30.0, -6.0, np.eye(3), np.zeros((2, 4)), True) for a, b in ends]
        found = [
            Group(names[0][0], tuple(Member(name, box, copy_of) for name, copy_of in names), (edge,))
            for names, edge in zip(members, edges, strict=True)
        ]
        examined = Examined(tuple(map(str, photos)), tuple(edges), (), 0)
        return [(7, Grouping(tuple(found), (), examined), 3)]

    monkeypatch.setattr(datasets, "landmark_distractors", lambda data: tuple(originals))
    monkeypatch.setattr(groups, "COPIED", 300)
    monkeypatch.setattr(groups, "_groupings", planted)
    (row,) = groups.copies(tmp_path, groups.Options(cache=tmp_path))
    assert row == {
        "part": "copies",
        "neighbours": 7,
        "photos": 14,
        "half": 1,
        "jpeg_30": 1,
        "crop_70": 0,
        "frame": 0,
        "grey": 1,
        "mirrored": 1,
        "copies_of_other_photos": [["0.png", "1.png"]],
        "processor_seconds": 3,
    }
    assert (sizes["000_half.png"], sizes["000_crop_70.png"], sizes["000_frame.png"]) == ((30, 20), (42, 28), (72, 52))
    with Image.open(tmp_path / "disguises" / "000_mirrored.png") as mirrored, Image.open(originals[0]) as original:
        assert (np.asarray(mirrored)[:, ::-1] == np.asarray(original)).all()
