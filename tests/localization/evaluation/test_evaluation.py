"""A whole evaluation on planted photos with an encoder that sees colours."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import localization
from delf_jax.errors import ImageError, PredictorError
from localization.evaluation import metrics
from localization.evaluation.annotated_photo import AnnotatedPhoto
from localization.evaluation.evaluation import evaluate, summary
from localization.evaluation.protocols import FULL, CropProtocol, FittingPhotos
from localization.foreground import classes
from localization.maps.boxes import rescale_box

SMALL = CropProtocol("small", 72, 64)


def colours(images: np.ndarray) -> np.ndarray:
    """Red as long features of one kind, grey as short ones of another; green and blue mark the class."""
    cells = images.reshape(len(images), 16, 4, 16, 4, 3).mean(axis=(2, 4)).astype(np.float32)
    red = np.maximum(cells[..., :1] - 60, 0)
    return np.concatenate([3 * red, cells[..., 1:], np.full_like(red, 30)], axis=-1)


def planted(folder: Path, seed: int) -> AnnotatedPhoto:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 50, (80, 120, 3), np.uint8)
    x, y, w, h = rng.integers(10, 50), rng.integers(5, 30), rng.integers(30, 55), rng.integers(25, 40)
    pixels[y : y + h, x : x + w] = (250, 200, 0) if seed % 2 else (250, 0, 200)
    path = folder / f"{seed}.png"
    Image.fromarray(pixels).save(path)
    mask = np.zeros((80, 120), np.uint8)
    mask[y : y + h, x : x + w] = 1
    return AnnotatedPhoto(
        path, [(float(x), float(y), float(x + w), float(y + h))], f"kind {seed % 2}", mask=lambda: mask
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[AnnotatedPhoto]:
    folder = tmp_path_factory.mktemp("planted")
    return [planted(folder, seed) for seed in range(10)]


@pytest.fixture(scope="module")
def fitted(photos: list[AnnotatedPhoto]) -> localization.Predictor:
    encoder = localization.CallableEncoder(colours, name="colours", size=64)
    labels = {str(photo.path): str(photo.label) for photo in photos}
    return localization.fit(FittingPhotos(photos[:6], side=64), encoder=encoder, labels=labels)


def test_evaluation(photos: list[AnnotatedPhoto], fitted: localization.Predictor) -> None:
    result = evaluate(fitted, photos[6:], protocol=SMALL, further={"away": -fitted.direction()})
    assert [m.method for m in result.methods] == ["foreground", "away", "activation sum", "class", "centre"]
    assert result.curve("foreground").best()[0] == 1
    assert result.curve("class").best()[0] == 1
    assert result.curve("away").best()[0] < 1
    assert result.top_k_curve("foreground", 1).best()[0] == 1
    assert result.logits["nearest mean"].argmax(axis=1).tolist() == result.classes.tolist() == [0, 1, 0, 1]
    assert result.by_area("foreground", result.curve("foreground").best()[1], parts=2) == [1, 1]
    assert (len(result.areas), result.masks) == (4, 4)
    assert (result.scores > 0).all()
    assert result.pixels("foreground").pxap() > 0.9 > result.pixels("centre").pxap()
    assert result.pixels("foreground").piou() > 0.6
    with pytest.raises(PredictorError, match="was not evaluated"):
        result.curve("cam")
    with pytest.raises(PredictorError, match="'linear probe'"):
        result.top_k_curve("foreground", 1, "linear probe")


def test_masks_of_nothing_or_of_another_photo(photos: list[AnnotatedPhoto], fitted: localization.Predictor) -> None:
    empty = photos[6]._replace(mask=lambda: np.zeros((80, 120), np.uint8))
    turned = photos[7]._replace(mask=lambda: np.ones((120, 80), np.uint8))
    half = photos[8]._replace(mask=lambda: photos[8].mask()[::2, ::2])
    result = evaluate(fitted, [empty, turned, half], protocol=SMALL)
    assert (len(result.areas), result.masks) == (2, 1)
    assert result.pixels("foreground").pxap() > 0.9
    (error,) = result.failed
    assert str(error).startswith(f"{photos[7].path}: its true mask has 80 x 120 pixels, the photo 120 x 80")


def test_zero_shot_measures_no_classes(photos: list[AnnotatedPhoto], fitted: localization.Predictor) -> None:
    strangers = [photo._replace(label="another") for photo in photos[6:]]
    result = evaluate(fitted, strangers, protocol=SMALL)
    assert [m.method for m in result.methods] == ["foreground", "activation sum", "centre"]
    assert not result.logits
    with pytest.raises(PredictorError, match="'another' was not fitted"):
        evaluate(fitted, [*strangers, photos[0]], protocol=SMALL)


def test_linear_probe_beside_the_nearest_mean(photos: list[AnnotatedPhoto], fitted: localization.Predictor) -> None:
    training = FittingPhotos(photos[:6], side=64)
    means = classes.mean_features(training, encoder=fitted.encoder)
    probe = classes.linear_probe(means, {str(photo.path): str(photo.label) for photo in photos})
    result = evaluate(fitted, photos[6:], protocol=SMALL, classifiers={"linear probe": probe})
    assert list(result.logits) == ["nearest mean", "linear probe"]
    assert result.known(1, "linear probe").all()
    with pytest.raises(PredictorError, match="not those that were fitted"):
        evaluate(fitted, photos[6:], protocol=SMALL, classifiers={"swapped": probe._replace(names=["a", "b"])})


def test_whole_photos_give_the_corloc_of_what_localize_finds(
    photos: list[AnnotatedPhoto], fitted: localization.Predictor
) -> None:
    several = [p._replace(boxes=[*p.boxes, (0.0, 0.0, 9.0, 80.0)]) for p in photos[6:]]
    result = evaluate(fitted, several, protocol=FULL)
    for threshold in (0.1, 0.5, 0.9):
        found = fitted.localize([p.path for p in several], threshold=threshold)
        boxes = [one.boxes[0] for one in found]
        expected = metrics.corloc(boxes, [p.boxes for p in several], convention="edges")
        assert result.curve("foreground").at(threshold) == expected
    truth = np.array(photos[6].boxes)
    (area,) = (truth[:, 2:] - truth[:, :2]).prod(axis=1) / (80 * 120)
    assert result.areas[0] == pytest.approx(area)
    x0, y0, x1, y1 = rescale_box(localization.maps.boxes.Box(*metrics.centre_box(64, 64), 0), (64, 64), (80, 120))[:4]
    hits = [
        metrics.box_iou(np.array([[x0, y0, x1, y1]]), np.array(p.boxes), convention="edges").max() >= 0.5
        for p in several
    ]
    assert result.curve("centre").at(0.5) == np.mean(hits)


def test_summary_labels_where_thresholds_come_from(
    photos: list[AnnotatedPhoto], fitted: localization.Predictor
) -> None:
    measured = evaluate(fitted, photos[6:], protocol=SMALL)
    row = summary(measured, "foreground", default_threshold=0.25)
    assert row["threshold_from"] == "oracle"
    assert row["accuracy"] == measured.curve("foreground").best()[0] >= row["accuracy_default"]
    assert row["nearest mean"]["top1"] <= row["nearest mean"]["top5"] <= row["accuracy"]
    assert row["max_box_acc_v2"]["official"] <= row["max_box_acc_v2"]["wsolevaluation"]
    held_out = evaluate(fitted, photos[:6], protocol=SMALL)
    chosen = summary(measured, "foreground", default_threshold=0.25, chosen_on=held_out)
    assert (chosen["threshold_from"], chosen["threshold"]) == ("validation", held_out.curve("foreground").best()[1])
    centre = summary(measured, "centre", default_threshold=0.25)
    assert (centre["threshold"], centre["threshold_from"], centre["default_threshold"]) == (None, None, None)


def test_photos_without_boxes_or_unreadable(photos: list[AnnotatedPhoto], tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no")
    bad = AnnotatedPhoto(tmp_path / "bad.png", [(0, 0, 1, 1)])
    encoder = localization.CallableEncoder(colours, name="colours", size=64)
    training = FittingPhotos([bad, *photos[:3]], side=64)
    fitted = localization.fit(training, encoder=encoder)
    assert list(training.failed) == [str(bad.path)]
    assert fitted.statistics.photos == 3
    result = evaluate(fitted, [*photos[:3], bad, photos[0]._replace(boxes=[])], protocol=CropProtocol("s", 64, 64))
    assert len(result.areas) == 3
    (failed,) = result.failed
    assert isinstance(failed, ImageError)
    assert failed.source == str(bad.path)
    assert result.logits == {}
    with pytest.raises(PredictorError, match="fitted with classes"):
        result.top_k_curve("foreground", 1)
