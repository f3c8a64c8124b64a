"""Properties of whole extractions on real photos, with a small random network of the real structure."""

import dataclasses
import json
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import delf_jax
from delf_jax import Head
from delf_jax.photos.buckets import pad_batch
from delf_jax.photos.load import load_photo

pytestmark = pytest.mark.usefixtures("full_compilation")

STEMS = ("graf1", "chelsea", "box", "flower")
SCALES = (0.5, 1.0)


@pytest.fixture(scope="module")
def extractor(tiny_model: Path) -> delf_jax.Extractor:
    return delf_jax.load(tiny_model, max_side=384, max_features=300, scales=SCALES)


@pytest.fixture(scope="module")
def paths(demo_photos: Path) -> list[Path]:
    return [next(demo_photos.glob(f"{stem}.*")) for stem in STEMS]


@pytest.fixture(scope="module")
def features(extractor: delf_jax.Extractor, paths: list[Path]) -> list[delf_jax.LocalFeatures]:
    return extractor(paths)


def assert_same(a: delf_jax.LocalFeatures, b: delf_jax.LocalFeatures) -> None:
    """At least 99 % of the keypoints shared, and the shared ones described alike."""
    assert a.image_size == b.image_size
    of_b = {key: row for row, key in enumerate(_keys(b))}
    pairs = [(row, of_b[key]) for row, key in enumerate(_keys(a)) if key in of_b]
    assert len(pairs) >= 0.99 * max(len(a), len(b), 1)
    rows_a, rows_b = np.array(pairs).reshape(-1, 2).T
    cosines = np.sum(a.descriptors[rows_a] * b.descriptors[rows_b], axis=1)
    assert cosines.min(initial=1.0) >= 0.9999


def _keys(features: delf_jax.LocalFeatures) -> list[tuple[float, ...]]:
    return [tuple(row) for row in np.round(np.c_[features.keypoints, features.scales * 100], 1).tolist()]


def test_shapes_and_order(features: list[delf_jax.LocalFeatures], paths: list[Path]) -> None:
    for one, path in zip(features, paths, strict=True):
        with Image.open(path) as photo:
            assert one.image_size == (photo.height, photo.width)
        n = len(one)
        assert n > 25
        assert one.keypoints.shape == (n, 2)
        assert one.descriptors.shape == (n, 16)
        assert one.keypoints.dtype == one.scales.dtype == one.scores.dtype == one.descriptors.dtype == np.float32
        assert (np.diff(one.scores) <= 0).all()
        np.testing.assert_allclose(np.linalg.norm(one.descriptors, axis=1), 1, atol=1e-5)
        assert (one.keypoints >= -0.5).all()
        assert (one.keypoints <= np.array(one.image_size[::-1]) - 0.5).all()


def test_batch_equals_single(
    tiny_model: Path, paths: list[Path], features: list[delf_jax.LocalFeatures], extractor: delf_jax.Extractor
) -> None:
    batched = delf_jax.load(tiny_model, max_side=384, max_features=300, scales=SCALES, batch_size=3)
    for alone, together in zip(features, batched(paths), strict=True):
        assert_same(alone, together)


def test_padding_never_changes_a_feature(extractor: delf_jax.Extractor, paths: list[Path]) -> None:
    photo = load_photo(paths[0], max_side=250).pixels
    images, valid_hw = pad_batch([photo, photo], (416, 384), 2)
    images[1][~np.pad(np.ones(photo.shape[:2], bool), [(0, 416 - photo.shape[0]), (0, 384 - photo.shape[1])])] = 137
    tight, tight_hw = pad_batch([photo], photo.shape[:2], 1)
    apply = jax.jit(extractor.apply)
    wide = apply(extractor.params, images, valid_hw)
    alone = apply(extractor.params, tight, tight_hw)
    for row in range(2):
        assert_same(_one(alone, 0), _one(wide, row))


def _one(batch: delf_jax.LocalFeatures, row: int) -> delf_jax.LocalFeatures:
    part = jax.tree.map(lambda array: np.asarray(array[row]), batch)
    keep = part.valid
    size = (int(part.image_size[0]), int(part.image_size[1]))
    return delf_jax.LocalFeatures(
        part.keypoints[keep], part.scales[keep], part.scores[keep], part.descriptors[keep], image_size=size
    )


def test_eight_devices_give_the_same_and_never_talk(
    on_devices: Callable[[int, str], str],
    tiny_model: Path,
    paths: list[Path],
    features: list[delf_jax.LocalFeatures],
    tmp_path: Path,
) -> None:
    source = f"""
        import re, numpy as np, jax, delf_jax
        extractor = delf_jax.load({str(tiny_model)!r}, max_side=384, max_features=300, scales={SCALES})
        assert extractor.batch_size == 8
        for number, one in enumerate(extractor({[str(path) for path in paths]!r})):
            arrays = dict(k=one.keypoints, s=one.scales, a=one.scores, d=one.descriptors, i=one.image_size)
            np.savez({str(tmp_path)!r} + f"/{{number}}.npz", **arrays)
        images = np.zeros((8, 96, 96, 3), np.uint8)
        compiled = extractor.lower(images.shape).compile().as_text()
        print(len(re.findall("all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter", compiled)))
    """
    assert on_devices(8, textwrap.dedent(source)).strip() == "0"
    for number, alone in enumerate(features):
        with np.load(tmp_path / f"{number}.npz") as saved:
            size = (int(saved["i"][0]), int(saved["i"][1]))
            sharded = delf_jax.LocalFeatures(saved["k"], saved["s"], saved["a"], saved["d"], image_size=size)
        assert_same(alone, sharded)


def test_shift_by_the_stride_moves_interior_cells_exactly(extractor: delf_jax.Extractor, paths: list[Path]) -> None:
    photo = load_photo(paths[0], max_side=384).pixels
    shift, reach = 48, 112
    whole = extractor.dense(extractor.params, photo[None], np.array([photo.shape[:2]]), last="conv4")["conv4"]
    cut = photo[shift:, shift:]
    moved = extractor.dense(extractor.params, cut[None], np.array([cut.shape[:2]]), last="conv4")["conv4"]
    cells, border = shift // 16, reach // 16
    a = np.asarray(whole[0, cells + border : -border, cells + border : -border])
    b = np.asarray(moved[0, border:-border, border:-border])
    assert a.size > 0
    np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(a).max())


def test_exif_orientation_gives_the_upright_features(
    extractor: delf_jax.Extractor, features: list[delf_jax.LocalFeatures], paths: list[Path], tmp_path: Path
) -> None:
    upright = load_photo(paths[1], max_side=None).pixels
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(upright))).save(tmp_path / "photo.png", exif=exif)
    (turned,) = extractor([tmp_path / "photo.png"])
    assert_same(features[1], turned)


def test_positions_are_the_derived_centres(tiny_model: Path, paths: list[Path]) -> None:
    single = delf_jax.load(tiny_model, max_side=384, scales=(0.7071,), max_features=500, detection="cells")
    photo = load_photo(paths[0], max_side=384).pixels
    (found,) = single([photo])
    height, width = photo.shape[:2]
    scaled = np.floor(np.array([width, height]) * np.float32(0.7071) + 0.5)
    cells = ((found.keypoints + 0.5) * scaled / [width, height] - 0.5) / 16
    np.testing.assert_allclose(cells, np.round(cells), atol=1e-4)
    assert len(np.unique(np.round(cells), axis=0)) == len(found)
    (peaks,) = delf_jax.load(tiny_model, max_side=384, scales=(0.7071,), max_features=500)([photo])
    assert 20 < len(peaks) < len(found) / 2
    nearest = np.abs(found.keypoints[None] - peaks.keypoints[:, None]).max(axis=-1).min(axis=1)
    assert nearest.max() <= 8 / 0.7071 + 0.1
    assert (nearest > 0.5).mean() > 0.5


def test_keypoints_are_in_pixels_of_the_original(tiny_model: Path, paths: list[Path]) -> None:
    full = load_photo(paths[0], max_side=None)
    (reduced,) = delf_jax.load(tiny_model, max_side=192, max_features=100, scales=SCALES)([paths[0]])
    assert reduced.image_size == full.original_size
    assert reduced.keypoints.max() > 192
    ratio = full.original_size[1] / 192
    assert np.isclose(reduced.scales.max() * ratio, 1.0, rtol=0.01)
    assert reduced.domain is not None
    assert np.isclose(reduced.domain.pixel, ratio, rtol=0.01)
    low, high = reduced.domain[:2], reduced.domain[2:4]
    assert ((reduced.keypoints + 0.5 >= low) & (reduced.keypoints + 0.5 <= high)).all()
    assert reduced.domain.area <= full.original_size[0] * full.original_size[1]


@pytest.mark.parametrize(
    "photo",
    [
        np.full((120, 160, 3), 200, np.uint8),
        np.zeros((120, 160, 3), np.uint8),
        np.zeros((1, 1, 3), np.uint8),
        np.full((5, 4000, 3), 9, np.uint8),
        np.random.default_rng(0).integers(0, 255, (5, 4000, 3), np.uint8),
    ],
    ids=["constant", "black", "1x1", "5x4000 constant", "5x4000 noise"],
)
def test_photos_that_show_nothing_give_nothing(extractor: delf_jax.Extractor, photo: np.ndarray) -> None:
    (found,) = extractor([photo])
    assert len(found) == 0
    assert found.descriptors.shape == (0, 16)
    assert found.image_size == photo.shape[:2]


def test_constant_areas_and_frames_give_nothing_there(extractor: delf_jax.Extractor, paths: list[Path]) -> None:
    photo = load_photo(paths[0], max_side=300).pixels
    height, width = photo.shape[:2]
    framed = np.pad(photo, ((40, 40), (40, 40), (0, 0)), constant_values=255)
    (found,) = extractor([framed])
    assert len(found) > 20
    x, y = found.keypoints.T
    assert ((x > 39.5 - 1e-3) & (x < 40 + width) & (y > 39.5 - 1e-3) & (y < 40 + height)).all()
    patched = photo.copy()
    patched[80:180, 100:200] = 128
    (found,) = extractor([patched])
    x, y = found.keypoints.T
    assert not ((x > 112) & (x < 188) & (y > 92) & (y < 168)).any()
    assert np.isfinite(found.descriptors).all()


def test_few_programs_and_none_compiled_twice(tiny_model: Path, on_devices: Callable[[int, str], str]) -> None:
    source = f"""
        import json, jax, numpy as np, delf_jax
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        counts = dict(misses=0)
        def listen(name, **_):
            counts["misses"] += name == "/jax/compilation_cache/cache_misses"
        jax.monitoring.register_event_listener(listen)
        generator = np.random.default_rng(3)
        extractor = delf_jax.load({str(tiny_model)!r}, max_side=128, max_features=50, scales=(0.5, 1.0))
        sizes = generator.integers(20, 400, (80, 2))
        photos = [generator.integers(0, 255, (*size, 3), np.uint8) for size in sizes]
        found = extractor(photos)
        assert len(found) == 80 and all(one.image_size == tuple(size) for one, size in zip(found, sizes))
        print(json.dumps(counts | dict(programs=extractor.compiled_programs)))
    """
    source = textwrap.dedent(source)
    first = json.loads(on_devices(1, source))
    second = json.loads(on_devices(1, source))
    assert 1 < first["programs"] <= 12
    assert second == {"misses": 0, "programs": first["programs"]}


def test_a_scorer_that_the_head_lacks_is_refused(tiny_model: Path) -> None:
    untrained = dataclasses.replace(Head.open(tiny_model / "head.safetensors"), attention=None)
    with pytest.raises(delf_jax.ModelError, match=r"no 'learned' scorer; it has: norm, foreground"):
        delf_jax.load(tiny_model, head=untrained)


@pytest.fixture(scope="module")
def conv4(extractor: delf_jax.Extractor, paths: list[Path]) -> np.ndarray:
    """The dense features of the first photo at 128 pixels, float64 [h, w, C]."""
    photo = load_photo(paths[0], max_side=128).pixels
    dense = jax.jit(extractor.dense, static_argnames="last")
    maps = dense(extractor.params, photo[None], np.array([photo.shape[:2]], np.int32), last="conv4")
    return np.asarray(maps["conv4"][0], np.float64)


@pytest.mark.parametrize("scorer", ["norm", "foreground", "learned"])
def test_scores_are_those_of_the_formula(tiny_model: Path, paths: list[Path], conv4: np.ndarray, scorer: str) -> None:
    head = Head.open(tiny_model / "head.safetensors")
    attention = head.attention
    assert attention is not None
    hidden = np.maximum(conv4 @ attention["hidden_kernel"] + attention["hidden_bias"], 0)
    expected = {
        "norm": np.linalg.norm(conv4, axis=-1),
        "foreground": np.maximum(conv4 @ head.foreground, 0),
        "learned": np.log1p(np.exp(hidden @ attention["kernel"] + attention["bias"])),
    }
    options = {"max_side": 128, "scales": (1.0,), "detection": "cells", "max_features": 20}
    (found,) = delf_jax.load(tiny_model, scorer=scorer, **options)(paths[:1])
    with Image.open(paths[0]) as photo:
        reduced = (found.keypoints + 0.5) * (128 / max(photo.size)) - 0.5
    columns, rows = np.rint(reduced / 16).astype(int).T
    assert len(found) == 20
    np.testing.assert_allclose(found.scores, expected[scorer][rows, columns], rtol=1e-4)


def test_bfloat16_computes_in_bfloat16_and_stays_near_float32(
    tiny_model: Path, paths: list[Path], conv4: np.ndarray
) -> None:
    fast = delf_jax.load(tiny_model, precision="bfloat16", max_side=128, scales=(1.0,))
    exact = delf_jax.load(tiny_model, max_side=128, scales=(1.0,))
    shape = (fast.batch_size, 96, 128, 3)
    for extractor, expected in ((fast, "bf16"), (exact, "f32")):
        types = re.findall(r"stablehlo\.convolution.*-> tensor<[\dx]*x(\w+)>", extractor.lower(shape).as_text())
        assert set(types) == {expected}
    photo = load_photo(paths[0], max_side=128).pixels
    dense = jax.jit(fast.dense, static_argnames="last")
    maps = dense(fast.params, photo[None], np.array([photo.shape[:2]], np.int32), last="conv4")
    assert maps["conv4"].dtype == jnp.bfloat16
    error = np.linalg.norm(np.asarray(maps["conv4"][0], np.float64) - conv4) / np.linalg.norm(conv4)
    assert 0 < error < 0.03


def test_thresholds(tiny_model: Path, paths: list[Path], features: list[delf_jax.LocalFeatures]) -> None:
    scores = features[0].scores
    absolute = delf_jax.load(tiny_model, max_side=384, max_features=300, scales=SCALES, threshold=float(scores[40]))
    assert len(absolute(paths[:1])[0]) == 41
    quantile = delf_jax.load(tiny_model, max_side=384, max_features=300, scales=SCALES, quantile=0.9)
    assert len(quantile(paths[:1])[0]) == pytest.approx(0.1 * len(scores), abs=1)


def test_pure_functions_jit_and_differentiate(extractor: delf_jax.Extractor, paths: list[Path]) -> None:
    photo = load_photo(paths[0], max_side=128).pixels
    valid_hw = jnp.array([photo.shape[:2]])

    def energy(images: jax.Array) -> jax.Array:
        return extractor.dense(extractor.params, images, valid_hw, last="conv4")["conv4"].sum()

    gradient = jax.jit(jax.grad(energy))(jnp.asarray(photo[None], jnp.float32))
    assert gradient.shape == (1, *photo.shape)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


def test_bad_photo_is_named(extractor: delf_jax.Extractor, paths: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"not a photo")
    with pytest.raises(delf_jax.ImageError, match=r"broken\.jpg"):
        extractor([paths[0], tmp_path / "broken.jpg"])
    items = [("bad", tmp_path / "broken.jpg"), ("good", paths[0])]
    results = {key: features for key, features, _ in extractor.stream(items)}
    assert isinstance(results["bad"], delf_jax.ImageError)
    assert len(results["good"]) > 25
