"""Every dialect of YOLO's label files: its boxes by hand, and rows that cannot be told."""

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from delf_jax.errors import DelfError
from localization.evaluation.datasets import read

WIDTH, HEIGHT = 200, 100
# A triangle that begins at the lower right, so that its first numbers cannot be a box.
TRIANGLE = ".8 .8 .9 .8 .9 .9"
ROTATED = ".5 .2 .65 .5 .5 .8 .35 .5"  # corners (100, 20), (130, 50), (100, 80), (70, 50): a square on its tip
KITE = ".5 .2 .9 .5 .5 .8 .35 .5"
COCO_POINTS = " ".join(f"{0.4 + 0.01 * n:.2f} 0.5 {n % 3}" for n in range(17))


def folder(root: Path, *files: str, kpt_shape: str = "") -> Path:
    for number, text in enumerate(files):
        for name in ("images", "labels"):
            (root / name).mkdir(exist_ok=True)
        Image.new("L", (WIDTH, HEIGHT)).save(root / "images" / f"{number}.png")
        (root / "labels" / f"{number}.txt").write_text(text, encoding="utf-8")
    if kpt_shape:
        (root / "data.yaml").write_text(f"path: .\n{kpt_shape}\nnames: [a]\n")
    return root


BOX = (80, 30, 120, 70)
READ: dict[str, tuple[str, str, list[tuple[float, ...]], int | None]] = {
    # name: (rows, kpt_shape, boxes, pixels of the mask)
    "boxes": ("0 .5 .5 .2 .4\n\n7 .1 .1 .2 .2\n", "", [BOX, (0, 0, 40, 20)], None),
    "boxes with confidence": ("0 .5 .5 .2 .4 .87\n", "", [BOX], None),
    "outlines": (f"0 {TRIANGLE}\n", "", [(160, 80, 180, 90)], 100),
    "outlines with confidence": (
        f"0 {TRIANGLE} .5\n0 .1 .1 .3 .1 .3 .3 .1 .3 .25\n", "", [(160, 80, 180, 90), (20, 10, 60, 30)], 900
    ),
    "oriented boxes": (f"0 {ROTATED}\n", "", [(70, 20, 130, 80)], None),
    "oriented boxes with confidence": (f"0 {ROTATED} .9\n", "", [(70, 20, 130, 80)], None),
    "quadrilaterals": (f"0 {ROTATED}\n0 {KITE}\n", "", [(70, 20, 130, 80), (70, 20, 180, 80)], 3300),
    "17 keypoints with visibility": (f"0 .5 .5 .2 .4 {COCO_POINTS}\n", "", [BOX], None),
    "keypoints that kpt_shape names": ("0 .5 .5 .2 .4 .45 .4 .55 .6\n", "kpt_shape: [2, 2]", [BOX], None),
    "kpt_shape as a list": ("0 .5 .5 .2 .4 .45 .4 .9 .55 .6 .1\n", "kpt_shape:\n  - 2\n  - 3", [BOX], None),
    "keypoints with confidence": ("0 .5 .5 .2 .4 .45 .4 .55 .6 .8\n", "kpt_shape: [2, 2]", [BOX], None),
    "boxes beside outlines": (f"0 .5 .5 .2 .4\n0 {TRIANGLE}\n", "", [BOX, (160, 80, 180, 90)], None),
    "a byte-order mark": ("\ufeff0 .5 .5 .2 .4\r\n", "", [BOX], None),
    "rounded a little above 1": ("0 .5 .5 1.0000001 1\n", "", [(0, 0, 200, 100)], None),
    "no objects": ("", "", [], None),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_rows_that_are_read(name: str, tmp_path: Path) -> None:
    rows, kpt_shape, boxes, pixels = READ[name]
    (photo,) = read(folder(tmp_path, rows, kpt_shape=kpt_shape))
    np.testing.assert_allclose(np.reshape(photo.boxes, (-1, 4)), np.reshape(boxes, (-1, 4)), atol=1e-4)
    assert (photo.mask is None) == (pixels is None)
    if photo.mask is not None and pixels is not None:
        # Pixels that a sloping edge crosses count as a whole or not at all.
        assert int(photo.mask().sum()) == pytest.approx(pixels, rel=0.1)


REFUSED: dict[str, tuple[tuple[str, ...], str, str]] = {
    # name: (files, kpt_shape, message after the folder)
    "NaN": (("0 .5 .5 .2 .4\n0 .5 nan .2 .4\n",), "", "0.txt: line 2: is not the number of a class and finite numbers"),
    "infinity": (("0 .5 inf .2 .4\n",), "", "0.txt: line 1: is not the number of a class"),
    "pixels": (("0 100 50 40 40\n",), "", "0.txt: line 1: has 100; coordinates are shares"),
    "negative": (("0 -.1 .5 .2 .4\n",), "", "0.txt: line 1: has -0.1; coordinates are shares"),
    "an angle": (("0 .5 .5 .2 .4 .3\n0 .5 .5 .2 .4 1.5\n",), "", "0.txt: line 2: has 1.5"),
    "an outline in pixels": ((f"0 {TRIANGLE}\n", "0 80 80 90 80 90 90\n"), "", "1.txt: line 1: has 80; coordinates"),
    "no class": (("0.5 .5 .2 .4\n",), "", "0.txt: line 1: is not the number of a class"),
    "three numbers": (("0 .5 .5 .2\n",), "", "0.txt: line 1: has 3 numbers after the class"),
    "a name as class": (("dog .5 .5 .2 .4\n",), "", "0.txt: line 1: is not a class and numbers"),
    "commas": (("0,.5,.5,.2,.4\n",), "", "0.txt: line 1: is not a class and numbers"),
    "track numbers": (("0 .5 .5 .2 .4 .9 17\n",), "", "0.txt: line 1: has 17; coordinates"),
    "outline or keypoint": (("0 .5 .5 .52 .5 .51 .53\n",), "", "0.txt: line 1: may be an outline, or a box with"),
    "another kpt_shape": (("0 .5 .5 .2 .4 .45 .4 2\n",), "kpt_shape: [17, 3]", "0.txt: line 1: has 7 numbers"),
    "an odd count of outlines": ((f"0 {TRIANGLE} 2\n",), "", "0.txt: line 1: has 2; coordinates"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_rows_that_cannot_be_told(name: str, tmp_path: Path) -> None:
    files, kpt_shape, said = REFUSED[name]
    with pytest.raises(DelfError, match=re.escape(str(tmp_path / "labels" / said))):
        read(folder(tmp_path, *files, kpt_shape=kpt_shape))


def test_outlines_in_their_own_folder_need_no_guess(tmp_path: Path) -> None:
    outline = "0 .5 .5 .52 .5 .51 .53\n"
    folder(tmp_path, "0 .51 .515 .02 .03\n")
    own = tmp_path / "instance_segmentation" / "labels"
    own.mkdir(parents=True)
    (own / "0.txt").write_text(outline)
    (photo,) = read(tmp_path)
    assert photo.mask is not None
    assert photo.mask().any()
    (own / "0.txt").write_text("0 .5 .5 .52 .5 .51 5.3\n")
    with pytest.raises(DelfError, match=r"segmentation/labels/0\.txt: line 1: has 5\.3"):
        read(tmp_path)


SUFFIXES = ("jpg", "JPG", "jpeg", "png", "bmp", "webp", "tif")


def test_every_suffix_and_what_has_no_partner(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for number, suffix in enumerate(SUFFIXES):
        Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / "images" / f"{number}.{suffix}")
        (tmp_path / "labels" / f"{number}.txt").write_text("0 .5 .5 .2 .4\n")
    (tmp_path / "labels" / "classes.txt").write_text("dog\n")
    with caplog.at_level(logging.WARNING):
        photos = read(tmp_path)
    assert [photo.path.name for photo in photos] == [f"{number}.{suffix}" for number, suffix in enumerate(SUFFIXES)]
    np.testing.assert_allclose([photo.boxes[0] for photo in photos], [BOX] * 7)
    assert not caplog.records
    (tmp_path / "images" / "0.jpg").unlink()
    (tmp_path / "labels" / "1.txt").unlink()
    (tmp_path / "labels" / "2.txt").write_text("0 .5 .5 0 .4\n0 .5 .5 .2 .4\n")
    with caplog.at_level(logging.WARNING):
        assert [len(photo.boxes) for photo in read(tmp_path)] == [0, 1, 1, 1, 1, 1]
    assert [record.getMessage().removeprefix(f"{tmp_path}: ") for record in caplog.records] == [
        "photos without a label file, so without objects: 1, such as '1.JPG'",
        "label files without a photo: 1, such as '0.txt'",
        "boxes without an area, left out: 1",
    ]


def test_one_label_file_of_two_photos(tmp_path: Path) -> None:
    folder(tmp_path, "0 .5 .5 .2 .4\n")
    Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / "images" / "0.jpg")
    with pytest.raises(DelfError, match=r"0\.png: has the same label file as 0\.jpg"):
        read(tmp_path)


def test_shares_are_of_the_upright_photo(tmp_path: Path) -> None:
    folder(tmp_path, "0 .5 .5 .2 .4\n")
    exif: Any = Image.Exif()
    exif[0x0112] = 8
    Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / "images" / "0.png", exif=exif)
    (photo,) = read(tmp_path)
    np.testing.assert_allclose(photo.boxes, [(40, 60, 60, 140)])
