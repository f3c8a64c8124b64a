"""The crop protocols, and a whole evaluation on planted photos with an encoder that sees colours."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import localization
from delf_jax.errors import PredictorError
from localization import evaluation
from localization.datasets import Annotated
from localization.evaluation import OFFICIAL_FINE_GRAINED, WSOLEVALUATION, CropProtocol, crop_box, crop_photo, evaluate


def test_true_boxes_in_the_crop() -> None:
    # A photo of 960 x 240 becomes 480 x 480: x halves, y doubles, both minus 16, clipped to [0, 447].
    assert crop_box((100, 50, 301, 100), (240, 960), OFFICIAL_FINE_GRAINED) == (34, 84, 134, 184)  # 134.5 to even
    assert crop_box((0, 0, 960, 240), (240, 960), OFFICIAL_FINE_GRAINED) == (0, 0, 447, 447)
    assert crop_box((1, 1, 100, 100), (225, 225), WSOLEVALUATION) == (0, 0, 99, 99)  # truncated, not rounded


def test_crop_is_central() -> None:
    pixels = np.zeros((480, 480, 3), np.uint8)
    pixels[16, 16] = 255
    cropped = crop_photo(pixels, OFFICIAL_FINE_GRAINED)
    assert cropped.shape == (448, 448, 3)
    assert cropped[0, 0, 0] == 255


def colours(images: np.ndarray) -> np.ndarray:
    """Red as long features of one kind, grey as short ones of another; green and blue mark the class."""
    cells = images.reshape(len(images), 16, 4, 16, 4, 3).mean(axis=(2, 4)).astype(np.float32)
    red = np.maximum(cells[..., :1] - 60, 0)
    return np.concatenate([3 * red, cells[..., 1:], np.full_like(red, 30)], axis=-1)


def planted(folder: Path, seed: int) -> Annotated:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 50, (80, 120, 3), np.uint8)
    x, y, w, h = rng.integers(10, 50), rng.integers(5, 30), rng.integers(30, 55), rng.integers(25, 40)
    pixels[y : y + h, x : x + w] = (250, 200, 0) if seed % 2 else (250, 0, 200)
    path = folder / f"{seed}.png"
    Image.fromarray(pixels).save(path)
    return Annotated(path, [(float(x), float(y), float(x + w), float(y + h))], label=f"kind {seed % 2}")


def test_evaluation(tmp_path: Path) -> None:
    photos = [planted(tmp_path, seed) for seed in range(10)]
    labels = {str(photo.path): photo.label for photo in photos}
    encoder = localization.CallableEncoder(colours, name="colours", size=64)
    fitted = localization.fit(evaluation.Squashed(photos[:6], side=64), encoder=encoder, labels=labels)
    result = evaluate(fitted, photos[6:], protocol=CropProtocol(72, 64))
    assert [m.method for m in result.methods] == ["foreground", "activation sum", "class", "centre"]
    assert result.curve("foreground").best()[0] == 1
    assert result.curve("class").best()[0] == 1
    assert result.top_k_curve("foreground", 1).best()[0] == 1
    assert [order[0] for order in result.predicted] == [photo.label for photo in photos[6:]]
    assert result.by_area("foreground", result.curve("foreground").best()[1], parts=2) == [1, 1]
    assert len(result.areas) == 4
    with pytest.raises(PredictorError, match="was not evaluated"):
        result.curve("cam")


def test_photos_without_boxes_or_unreadable(tmp_path: Path) -> None:
    photos = [planted(tmp_path, seed) for seed in range(3)]
    (tmp_path / "bad.png").write_bytes(b"no")
    encoder = localization.CallableEncoder(colours, name="colours", size=64)
    fitted = localization.fit(evaluation.Squashed(photos, side=64), encoder=encoder)
    more = [*photos, Annotated(tmp_path / "bad.png", [(0, 0, 1, 1)]), photos[0]._replace(boxes=[])]
    result = evaluate(fitted, more, protocol=CropProtocol(64, 64))
    assert len(result.areas) == 3
    assert len(result.failed) == 1
    with pytest.raises(PredictorError, match="fitted with classes"):
        result.top_k_curve("foreground", 1)
