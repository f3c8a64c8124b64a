"""One loader for every photo: upright, 8-bit RGB, of bounded size, or a reason and a remedy."""

import hashlib
import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image, ImageCms

from delf_cli.demo import PHOTOS
from delf_jax.errors import ImageError
from delf_jax.photos.load import load_photo, reduced_size


def noise(height: int = 37, width: int = 53, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8).squeeze()


@pytest.fixture(scope="module")
def real() -> np.ndarray:
    path = sorted(path for path in PHOTOS.iterdir() if path.suffix in (".jpg", ".png"))[0]
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_transparent_areas_show_white(tmp_path: Path) -> None:
    red_half_blue = np.array([[[255, 0, 0, 255], [9, 9, 9, 0], [0, 0, 255, 128]]], np.uint8)
    expected = [[[255, 0, 0], [255, 255, 255], [127, 127, 255]]]
    Image.fromarray(red_half_blue).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(load_photo(tmp_path / "rgba.png", max_side=None).pixels, expected)
    np.testing.assert_array_equal(load_photo(red_half_blue, max_side=None).pixels, expected)
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "L").convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "p.png", transparency=b"\xff\x00")
    np.testing.assert_array_equal(
        load_photo(tmp_path / "p.png", max_side=None).pixels, [[[10, 20, 30], [255, 255, 255]]]
    )
    Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)).save(tmp_path / "key.png", transparency=(1, 2, 3))
    np.testing.assert_array_equal(load_photo(tmp_path / "key.png", max_side=None).pixels, [[[255] * 3, [4, 5, 6]]])


def test_cmyk_jpegs_of_adobe_are_not_negatives(real: np.ndarray, tmp_path: Path) -> None:
    # Pillow writes CMYK JPEGs as Adobe programs do: inverted, with Adobe's marker.
    Image.fromarray(real).convert("CMYK").save(tmp_path / "1.jpg", quality=95)
    photo = load_photo(tmp_path / "1.jpg", max_side=None)
    assert b"Adobe" in (tmp_path / "1.jpg").read_bytes()
    assert np.abs(photo.pixels.astype(int) - real).mean() < 4


@pytest.mark.parametrize("extension", ["gif", "webp", "png", "tiff"])
def test_the_first_frame_of_an_animation_counts(extension: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(tmp_path / f"1.{extension}", save_all=True, append_images=frames[1:])
    photo = load_photo(tmp_path / f"1.{extension}", max_side=None)
    assert np.abs(photo.pixels.astype(int) - [255, 0, 0]).max() <= 2


def test_arrays(real: np.ndarray) -> None:
    assert load_photo(real, max_side=None).content_hash is None
    np.testing.assert_array_equal(load_photo(real, max_side=None).pixels, real)
    grey = noise(channels=1)
    np.testing.assert_array_equal(load_photo(grey, max_side=None).pixels, grey[..., None].repeat(3, 2))
    assert load_photo(real[::2, ::-1], max_side=50).pixels.flags.c_contiguous
    for wrong, words in (
        (real.astype(np.float32), "pixels are uint8"),
        (real[None], r"a photo is \[height, width, 3\]"),
        (real[..., :2], r"a photo is \[height, width, 3\]"),
        (real[:0], "no pixels"),
    ):
        with pytest.raises(ImageError, match=words):
            load_photo(wrong, max_side=None)


@pytest.mark.parametrize(
    ("size", "max_side", "expected"),
    [
        ((3000, 4000), 1024, (768, 1024)),
        ((5, 4000), 1024, (1, 1024)),
        ((1, 1), 1024, (1, 1)),
        ((4000, 3), 1024, (1024, 1)),
        ((1023, 1024), 1024, (1023, 1024)),
        ((333, 1000), 100, (33, 100)),
        ((700, 500), None, (700, 500)),
    ],
)
def test_the_longest_side_is_reduced_and_never_enlarged(
    size: tuple[int, int], max_side: int | None, expected: tuple[int, int]
) -> None:
    assert reduced_size(size, max_side) == expected


def blob_centre(pixels: np.ndarray) -> np.ndarray:
    weights = pixels[..., 0].astype(float)
    ys, xs = np.mgrid[: weights.shape[0], : weights.shape[1]]
    return np.array([(xs * weights).sum(), (ys * weights).sum()]) / weights.sum()


@pytest.mark.parametrize("extension", ["png", "jpg"])
@pytest.mark.parametrize("size", [(640, 800), (643, 801), (1203, 517), (1200, 1600)])
def test_points_of_the_reduced_photo_map_back(size: tuple[int, int], extension: str, tmp_path: Path) -> None:
    centre = np.array([size[1] * 0.83, size[0] * 0.21])
    ys, xs = np.mgrid[: size[0], : size[1]]
    blob = 255 * np.exp(-((xs - centre[0]) ** 2 + (ys - centre[1]) ** 2) / (2 * 20.0**2))
    path = tmp_path / f"blob.{extension}"
    Image.fromarray(blob.round().astype(np.uint8)).save(path, **({"quality": 100} if extension == "jpg" else {}))
    for max_side in (400, 201, 90):
        photo = load_photo(path, max_side=max_side)
        assert photo.original_size == size
        assert photo.pixels.shape[:2] == reduced_size(size, max_side)
        ratio = np.array(size[::-1]) / np.array(photo.pixels.shape[1::-1])
        found = (blob_centre(photo.pixels) + 0.5) * ratio - 0.5
        np.testing.assert_allclose(found, centre, atol=0.15)


def test_a_jpeg_decoded_smaller_looks_like_one_decoded_whole(real: np.ndarray, tmp_path: Path) -> None:
    height, width = (n // 8 * 8 for n in real.shape[:2])
    even = np.ascontiguousarray(real[:height, :width])
    Image.fromarray(even).save(tmp_path / "1.jpg", quality=95)
    side = max(height, width) // 4
    smaller = load_photo(tmp_path / "1.jpg", max_side=side).pixels.astype(int)
    assert np.abs(smaller - load_photo(even, max_side=side).pixels).mean() < 2


def test_a_hundred_megapixels_are_fine_and_a_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("1", (10_000, 10_000)).save(path)
    photo = load_photo(path, max_side=64)
    assert (photo.pixels.shape, photo.original_size) == ((64, 64, 3), (10_000, 10_000))
    with pytest.raises(ImageError, match="10000 x 10000 pixels are above the limit of 50 megapixels"):
        load_photo(path, max_side=64, max_pixels=50_000_000)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    with pytest.raises(ImageError, match="60000 x 60000 pixels are above the limit of 200 megapixels"):
        load_photo(path, max_side=64)


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tiff", "gif", "bmp", "avif", "jp2", "ppm"])
def test_a_truncated_photo_is_refused(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"1.{extension}"
    Image.fromarray(noise(200, 300)).save(path)
    assert load_photo(path, max_side=None).original_size == (200, 300)
    data = path.read_bytes()
    for part in (0.6, 0.02):
        path.write_bytes(data[: int(len(data) * part)])
        with pytest.raises(ImageError, match="1." + extension):
            load_photo(path, max_side=100)


def test_what_is_no_photo_gets_one_line_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not a photo at all\n" * 9)
    (tmp_path / "script.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    Image.fromarray(noise(channels=1).astype(np.float32)).save(tmp_path / "float.tiff")
    for name, words in (
        ("missing.jpg", "there is no such file"),
        ("", "is a folder"),
        ("empty.jpg", "the file is empty"),
        ("text.jpg", "not a photo of a known format"),
        ("script.eps", "not a photo of a known format"),
        ("float.tiff", r"is a TIFF of grey \(1 floating-point number of 32 bits a pixel\), which is not read"),
        ("n" * 300, "too long"),
        ("text.jpg/inner.jpg", "cannot be read"),
    ):
        with pytest.raises(ImageError, match=words) as caught:
            load_photo(tmp_path / name, max_side=None)
        assert "\n" not in str(caught.value)

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)  # root may read everything, so permissions alone would not show it
    with pytest.raises(ImageError, match="permission to read it is denied"):
        load_photo(tmp_path / "text.jpg", max_side=None)


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="not a regular file"):
        load_photo(tmp_path / "pipe.jpg", max_side=None)


def test_addresses() -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise()).save(buffer, "PNG")
    fsspec.filesystem("memory").pipe_file("/loader/1.png", buffer.getvalue())
    photo = load_photo("memory://loader/1.png", max_side=None)
    np.testing.assert_array_equal(photo.pixels, noise())
    assert photo.content_hash == hashlib.sha256(buffer.getvalue()).hexdigest()
    for address, words in (
        ("memory://loader/none.png", "there is no such file"),
        ("nope://x/1.png", "Protocol not known"),
    ):
        with pytest.raises(ImageError, match=words):
            load_photo(address, max_side=None)


def test_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    paths = []
    for seed in range(12):
        paths.append(tmp_path / f"{seed}.{('png', 'tiff', 'gif')[seed % 3]}")
        Image.fromarray(noise(60, 80, 1, seed=seed)).save(paths[-1])
    with ThreadPoolExecutor(8) as pool:
        loaded = list(pool.map(lambda path: load_photo(path, max_side=None).pixels[..., 0], paths * 5))
    for position, pixels in enumerate(loaded):
        np.testing.assert_array_equal(pixels, noise(60, 80, 1, seed=position % 12))


def test_colour_profiles_are_ignored(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(noise()).save(tmp_path / "1.png", icc_profile=profile)
    np.testing.assert_array_equal(load_photo(tmp_path / "1.png", max_side=None).pixels, noise())
