"""Every mode of every format shows what another reader sees in it, or the photo is refused with the right words."""

import io
import itertools
import logging
import struct
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.color import lab2rgb

from delf_jax.errors import ImageError
from delf_jax.photos.load import load_photo
from tests.odd_files.pictures import jpeg_2000, png, png_chunk, seen, tiff

RANDOM = np.random.default_rng(0)
SAMPLES = RANDOM.integers(0, 256, (6, 5, 4), np.uint8)
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "JPEG2000", "PPM")
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F")
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N")


def pixels_of(data: bytes) -> np.ndarray:
    return load_photo(data, max_side=None).pixels


def assert_shows(data: bytes, expected: np.ndarray, *, within: int = 1) -> None:
    found = pixels_of(data)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= within


def assert_refused(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        pixels_of(data)
    assert caught.value.reason.endswith("convert it to a JPEG or PNG of 8 bits")
    assert "damaged" not in caught.value.reason


def picture(mode: str) -> Image.Image:
    """Noise, of colours that exist in every mode."""
    if mode.startswith("I;16"):
        return Image.frombytes(mode, (5, 6), RANDOM.integers(0, 1 << 16, (6, 5), np.uint16).tobytes())
    if mode in ("I", "F"):
        return Image.fromarray(SAMPLES[..., 0].astype(np.int32 if mode == "I" else np.float32))
    if mode in ("P", "PA"):
        return Image.fromarray(SAMPLES[..., :3]).quantize(16).convert(mode)
    if mode in ("La", "RGBa"):
        return Image.fromarray(SAMPLES).convert("LA" if mode == "La" else "RGBA").convert(mode)
    if mode == "LAB":  # three greys: every reader agrees on these
        return Image.frombytes("LAB", (3, 1), bytes([0, 0, 0, 120, 0, 0, 255, 0, 0]))
    return Image.fromarray(SAMPLES).convert("RGB" if mode != "RGBA" else "RGBA").convert(mode)


def written() -> dict[tuple[str, str], bytes]:
    """All that Pillow writes, by format and mode."""
    files = {}
    for form, mode in itertools.product(FORMATS, (*MODES, *DEEP_MODES)):
        out = io.BytesIO()
        try:
            picture(mode).save(out, form, **({"lossless": True} if form == "WEBP" else {}))
        except (OSError, ValueError, KeyError):
            continue
        files[form, mode] = out.getvalue()
    return files


WRITTEN = written()
REFUSED = {("TIFF", "I"): "signed number of 32 bits", ("TIFF", "F"): "floating-point", ("PPM", "F"): "a PFM picture"}
# OpenCV reads neither of the first two, and the third with weights that its standard (IEC 61966-2-1, annex F) has not.
BY_HAND = {("JPEG2000", "LA"), ("JPEG2000", "CMYK"), ("JPEG2000", "YCbCr")}


def seen_by_opencv(data: bytes) -> np.ndarray:
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    eight = (read >> 8 if read.dtype == np.uint16 else read).astype(np.uint8)
    return seen(eight if eight.ndim == 2 else np.concatenate([eight[..., 2::-1], eight[..., 3:]], 2))


def seen_by_tifffile(data: bytes) -> np.ndarray:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        read, colour = page.asarray(), page.photometric.name
        palette = page.colormap
    if read.dtype == np.uint16:
        read = read >> 8
    if colour == "PALETTE":
        colours = np.moveaxis(palette >> 8, 0, -1)[read if read.ndim == 2 else read[..., 0]]
        return seen(colours if read.ndim == 2 else np.concatenate([colours, read[..., 1:]], 2))
    if colour == "SEPARATED":
        left = 255 - read.astype(float)
        return np.round(left[..., :3] * left[..., 3:] / 255).astype(np.uint8)
    if colour == "YCBCR":
        return cv2.cvtColor(np.ascontiguousarray(read[..., [0, 2, 1]]), cv2.COLOR_YCrCb2RGB)
    if colour == "CIELAB":
        lab = read.astype(np.int8) * np.array([0, 1.0, 1.0]) + read[..., :1] * np.array([100 / 255, 0, 0])
        return np.round(lab2rgb(lab) * 255).astype(np.uint8)
    return seen(read * 255 if read.dtype == bool else read[..., :3] if page.extrasamples == (0,) else read)


def by_hand(mode: str) -> np.ndarray:
    samples = np.asarray(picture(mode)).astype(float)
    if mode == "LA":
        return seen(samples)
    if mode == "CMYK":
        return np.round((255 - samples[..., :3]) * (255 - samples[..., 3:]) / 255).astype(np.uint8)
    y, cb, cr = samples[..., 0], samples[..., 1] - 128, samples[..., 2] - 128
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], 2)
    return np.clip(np.round(rgb), 0, 255).astype(np.uint8)


def test_what_pillow_writes_is_known() -> None:
    assert len(WRITTEN) > 80
    assert {form for form, _ in WRITTEN} == set(FORMATS)


@pytest.mark.parametrize(("form", "mode"), WRITTEN, ids=lambda value: value)
def test_what_pillow_writes_is_read_as_another_reader_sees_it(form: str, mode: str) -> None:
    data = WRITTEN[form, mode]
    if (form, mode) in REFUSED:
        assert_refused(data, REFUSED[form, mode])
    elif (form, mode) in BY_HAND:
        assert_shows(data, by_hand(mode), within=2)
    else:
        assert_shows(data, (seen_by_tifffile if form == "TIFF" else seen_by_opencv)(data), within=2)


def true_colours(samples: np.ndarray, colour: str, extra: tuple[str, ...]) -> np.ndarray:
    eight = (samples >> 8 if samples.dtype == np.uint16 else samples).astype(int)
    if colour == "separated":
        return np.round((255 - eight[..., :3]) * (255 - eight[..., 3:4]) / 255).astype(np.uint8)
    if colour == "miniswhite":
        eight = 255 - eight
    if eight.ndim == 2:
        return seen(eight)
    count = 3 if colour == "rgb" else 1
    if extra[:1] == ("assocalpha",):
        return np.broadcast_to(eight[..., :count] + 255 - eight[..., count : count + 1], (*eight.shape[:2], 3))
    return seen(eight if extra[:1] == ("unassalpha",) else eight[..., :count])


EXTRA = ((), ("unassalpha",), ("assocalpha",), ("unspecified",), ("unspecified", "unspecified"))
CHANNELS = {"minisblack": 1, "miniswhite": 1, "rgb": 3, "separated": 4}


def reads(colour: str, kind: str, extra: tuple[str, ...], planar: bool, order: str) -> bool:
    """Which of these TIFFs are read; the others are refused."""
    if kind not in ("u1", "u2"):
        return False
    alpha, deep = "alpha" in "".join(extra), kind == "u2"
    extra = () if planar and not alpha else extra
    if colour == "rgb":
        return not (deep and len(extra) == 2)
    if colour == "separated":
        return not alpha and not (deep and extra)
    if colour == "miniswhite":
        return not extra and not (deep and order == ">")
    return not extra or (not deep and len(extra) == 1 and not planar)


@pytest.mark.parametrize("kind", ["u1", "u2", "i1", "i2", "u4", "f2", "f4", "f8"])
@pytest.mark.parametrize("colour", CHANNELS)
def test_every_layout_of_tiff(colour: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("tifffile"), "disabled", True)
    layouts = itertools.product(EXTRA, (False, True), "<>", (None, "zlib"))
    for extra, planar, order, compression in layouts:
        channels = CHANNELS[colour] + len(extra)
        if channels == 1 and planar:
            continue
        samples = (RANDOM.random((16, 32, channels)) * (1 if kind[0] == "f" else 200 << 8 * (kind != "u1"))).astype(
            kind
        )
        if "assocalpha" in extra:
            samples[..., :-1] = np.minimum(samples[..., :-1], samples[..., -1:])
        stored = np.ascontiguousarray(np.moveaxis(samples, -1, 0)) if planar else samples
        options: dict[str, Any] = {"photometric": colour, "byteorder": order, "compression": compression}
        if channels > 1:
            options |= {"planarconfig": "separate" if planar else "contig", "extrasamples": extra or None}
        file = io.BytesIO()
        tifffile.imwrite(file, stored if channels > 1 else stored[..., 0], **options)
        if reads(colour, kind, extra, planar, order):
            assert_shows(file.getvalue(), true_colours(samples, colour, extra))
        else:
            assert_refused(file.getvalue(), r"is a TIFF of .*, which is not read")


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize(
    ("colour_type", "bits", "channels"),
    [(0, 1, 1), (0, 2, 1), (0, 4, 1), (0, 8, 1), (0, 16, 1), (2, 8, 3), (2, 16, 3), (4, 8, 2), (4, 16, 2), (6, 16, 4)],
)
def test_every_depth_of_png(colour_type: int, bits: int, channels: int, transparent: bool) -> None:
    samples = RANDOM.integers(0, 1 << bits, (6, 8, channels))
    samples[1, 1] = samples[0, 0] ^ 1  # as far as eight bits show, often the same
    expected = seen(samples >> 8 if bits == 16 else np.round(samples * 255 / ((1 << bits) - 1)))
    if transparent and colour_type in (0, 2):
        key = samples[0, 0]
        expected = np.where((samples == key).all(2, keepdims=True), 255, expected)
        data = png(samples, bits, colour_type, before=png_chunk(b"tRNS", struct.pack(f">{channels}H", *map(int, key))))
    else:
        data = png(samples, bits, colour_type)
    assert_shows(data, expected)


@pytest.mark.parametrize("top", [1, 100, 255, 256, 1000, 65535])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("text", [False, True])
def test_every_maximum_of_ppm(top: int, channels: int, text: bool) -> None:
    samples = RANDOM.integers(0, top + 1, (6, 8, channels))
    samples[0, 0] = top
    kind = {(1, False): 5, (3, False): 6, (1, True): 2, (3, True): 3}[channels, text]
    body = (
        " ".join(map(str, samples.ravel())).encode() if text else samples.astype(">u2" if top > 255 else "u1").tobytes()
    )
    assert_shows(b"P%d\n8 6\n%d\n" % (kind, top) + body, seen(np.round(samples * 255 / top)))


# Two equal rows, which imagecodecs 2026.3.6 has written.
@pytest.mark.parametrize(
    ("bits", "row", "body"),
    [
        (1, [[0], [255]], "d08008"),
        (4, [[0], [255]], "df204008f126d7"),
        (12, [[0], [255]], "dfe02008f126d7473e665f"),
        (4, [[0] * 3, [255] * 3, [255, 0, 136]], "df205009012adbefdf204008f6253ddf204009025447"),
        (
            12,
            [[0] * 3, [255] * 3, [255, 0, 128]],
            "dfe02c09012adbefe37a3d4628a3dfe02808f6253e359f7a8c5144dfe0240902544912bd802a4f",
        ),
    ],
)
def test_every_depth_of_jpeg_2000(bits: int, row: list[list[int]], body: str) -> None:
    data = jpeg_2000((2, len(row)), bits, len(row[0]), body)
    assert_shows(data, seen(np.array([row, row])), within=0)


@pytest.mark.parametrize("channels", [3, 4])
def test_white_of_a_deep_jpeg_2000_is_white(channels: int) -> None:
    samples = RANDOM.integers(0, 1 << 16, (64, 64, channels), np.uint16)
    samples[:4] = 65535
    order = [2, 1, 0, 3][:channels]
    _, file = cv2.imencode(".jp2", samples[..., order], [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])
    assert_shows(file.tobytes(), seen(samples >> 8))


def test_a_deep_jpeg_2000_that_no_reader_reads_right_is_refused() -> None:
    assert_refused(
        jpeg_2000((2, 2), 16, 2, "cffc300c01cabfcffc300c01cabf"), "is a JPEG2000 of grey with alpha in 16 bits"
    )
    deep_cmyk = WRITTEN["JPEG2000", "CMYK"].replace(b"\x07\1\1" * 4, b"\x0f\1\1" * 4)
    assert_refused(deep_cmyk, "is a JPEG2000 of CMYK in 16 bits")
    deep_ycc = WRITTEN["JPEG2000", "YCbCr"].replace(b"\x07\1\1" * 3, b"\x0f\1\1" * 3)
    assert_refused(deep_ycc, "is a JPEG2000 of YCC in 16 bits")
    signed = jpeg_2000((2, 2), 8, 1, "00").replace(b"\x07\1\1\xff\x52", b"\x87\1\1\xff\x52")
    assert_refused(signed, "is a JPEG 2000 of signed numbers")


GREY = {"t258": 8, "t262": 1, "t277": 1}
ROW = bytes(range(0, 240, 20))


@pytest.mark.parametrize(
    ("tags", "pixels", "row"),
    [
        (GREY, ROW, list(ROW)),
        (GREY | {"t262": 0}, ROW, [255 - value for value in ROW]),
        (GREY | {"t258": 1}, b"\x0f\xa0", [0] * 4 + [255] * 4 + [255, 0, 255, 0]),
        (GREY | {"t258": 2}, b"\x1b\x1b\x1b", [0, 85, 170, 255] * 3),
        (GREY | {"t258": 4}, b"\x0f\x1e\x2d" * 2, [0, 255, 17, 238, 34, 221] * 2),
        (GREY | {"t258": 12}, b"\xff\xf0\x00\x80\x01\x20" * 3, [255, 0, 128, 18] * 3),
        (GREY | {"t258": 16, "t262": 0}, b"\xff\xff\0\0\0\x40" * 4, [0, 255, 191] * 4),
        # YCbCr, of which four pixels share one colour: four Y, Cb, Cr.
        (
            GREY | {"t258": (8, 8, 8), "t262": 6, "t277": 3, "t530": (4, 1)},
            bytes([10, 20, 30, 40, 128, 128]) * 3,
            [10, 20, 30, 40] * 3,
        ),
    ],
)
def test_rare_samples_of_tiff(tags: dict[str, Any], pixels: bytes, row: list[int]) -> None:
    assert_shows(tiff((1, 12), pixels, **tags), seen(np.array([row])))


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"t50706": (1, 4)}, "is a raw photo"),
        ({"t254": 1}, "another TIFF that begins with a small copy"),
        ({"t262": 32803}, "is a TIFF of colours of type 32803"),
        ({"t259": 34712}, "is a TIFF of compression 34712"),
        ({"t262": 3, "t320": (*range(256),) * 3}, "whose palette has 8 bits in place of 16"),
        ({"t262": 5, "t277": 4, "t258": (8,) * 4, "t332": 2}, "is a TIFF of other inks than CMYK"),
        (
            {"t262": 5, "t277": 5, "t258": (8,) * 5, "t338": 2},
            r"is a TIFF of CMYK with alpha \(5 numbers of 8 bits a pixel\), which is not read",
        ),
    ],
)
def test_tiffs_that_would_be_read_wrong_are_refused(tags: dict[str, Any], words: str) -> None:
    assert_refused(tiff((1, 12), bytes(60), **(GREY | tags)), words)


def test_a_tiff_that_does_not_say_what_its_numbers_mean_is_refused() -> None:
    assert_refused(tiff((1, 12), ROW, t258=8), "does not say what its numbers mean")


@pytest.mark.parametrize(
    ("begin", "words"),
    [
        (b"\xff\x0a", "is a JPEG XL picture"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "is a JPEG XL picture"),
        (b"FUJIFILMCCD-RAW", "is a raw picture"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "is a raw picture"),
        (b"8BPS\0\1", "is a Photoshop picture"),
        (b"P7\nWIDTH 1\n", "is a PAM picture"),
        # A JPEG of 12 bits, up to the header of its frame.
        (b"\xff\xd8\xff\xc1\0\x0b\x0c\0\x08\0\x08\1\1\x11\0", "its kind is not read"),
    ],
)
def test_a_healthy_file_of_another_kind_is_not_called_damaged(begin: bytes, words: str) -> None:
    assert_refused(begin + bytes(64), words)
