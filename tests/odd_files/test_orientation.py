"""Every place where a file may say how to turn it: photo, size and ground truth are all turned by one function."""

import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delf_jax.errors import ImageError
from delf_jax.photos.load import frame_of, load_photo
from tests.odd_files.pictures import exif, png, png_chunk, text_profile, xmp

UPRIGHT = np.random.default_rng(0).integers(0, 256, (5, 8), np.uint8)
STORED = {  # how a camera stores an upright photo under each orientation
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


def saved(form: str, **options: object) -> Callable[[np.ndarray], bytes]:
    def save(stored: np.ndarray) -> bytes:
        out = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(stored)).save(out, form, **options)
        return out.getvalue()

    return save


def text(name: bytes, value: bytes) -> bytes:
    return png_chunk(b"tEXt", name + b"\0" + value)


def long_text(name: bytes, value: bytes) -> bytes:
    return png_chunk(b"iTXt", name + b"\0\0\0\0\0" + value)


# Each makes a file of stored grey pixels and an orientation.
CARRIERS: dict[str, Callable[[np.ndarray, int], bytes]] = {
    "JPEG, EXIF, little-endian": lambda stored, o: saved("JPEG", exif=exif(o), quality=100)(stored),
    "JPEG, EXIF, big-endian": lambda stored, o: saved("JPEG", exif=exif(o, order=">"), quality=100)(stored),
    "JPEG, XMP": lambda stored, o: saved("JPEG", xmp=xmp(o), quality=100)(stored),
    "JPEG, EXIF before XMP": lambda stored, o: saved("JPEG", exif=exif(o), xmp=xmp(9 - o), quality=100)(stored),
    "MPO, EXIF of the first picture": lambda stored, o: saved(
        "MPO", save_all=True, append_images=[Image.new("L", (3, 3))], exif=exif(o), quality=100
    )(stored),
    "PNG, EXIF": lambda stored, o: png(stored, 8, 0, before=png_chunk(b"eXIf", exif(o)[6:])),
    "PNG, EXIF after the pixels": lambda stored, o: png(stored, 8, 0, after=png_chunk(b"eXIf", exif(o)[6:])),
    "PNG, EXIF as text": lambda stored, o: png(stored, 8, 0, before=text(b"Raw profile type exif", text_profile(o))),
    "PNG, APP1 as text": lambda stored, o: png(stored, 8, 0, after=text(b"Raw profile type APP1", text_profile(o))),
    "PNG, XMP": lambda stored, o: png(stored, 8, 0, before=long_text(b"XML:com.adobe.xmp", xmp(o))),
    "WebP, EXIF": lambda stored, o: saved("WEBP", lossless=True, exif=exif(o))(stored),
    "WebP, XMP": lambda stored, o: saved("WEBP", lossless=True, xmp=xmp(o))(stored),
    "TIFF, tag": lambda stored, o: saved("TIFF", tiffinfo={274: o})(stored),
    "TIFF, tag, compressed": lambda stored, o: saved("TIFF", tiffinfo={274: o}, compression="tiff_lzw")(stored),
    "TIFF, XMP": lambda stored, o: saved("TIFF", tiffinfo={700: xmp(o)})(stored),
    "AVIF, container": lambda stored, o: saved("AVIF", quality=100, exif=exif(o))(stored),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("carrier", CARRIERS)
def test_photo_and_size_are_turned_alike(carrier: str, orientation: int) -> None:
    data = CARRIERS[carrier](STORED[orientation](UPRIGHT), orientation)
    photo = load_photo(data, max_side=None)
    assert photo.original_size == frame_of(data).upright_size == (5, 8)
    assert frame_of(data).orientation == orientation
    assert frame_of(data).size == STORED[orientation](UPRIGHT).shape
    assert np.abs(photo.pixels[..., 0].astype(int) - UPRIGHT).max() <= 3  # JPEG and AVIF round


@pytest.mark.parametrize(
    "data",
    [
        saved("AVIF", quality=100, xmp=xmp(6))(UPRIGHT),  # the container says that it is upright
        saved("JPEG", exif=b"Exif\0\0")(UPRIGHT),
        saved("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")(UPRIGHT),
        saved("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01")(UPRIGHT),
        saved("JPEG", exif=b"xx")(UPRIGHT),
        saved("JPEG", exif=exif(9))(UPRIGHT),
        png(UPRIGHT, 8, 0, before=text(b"Raw profile type exif", b"\nexif\n 12\nno digits")),
    ],
)
def test_what_says_nothing_or_is_damaged_counts_as_upright(data: bytes) -> None:
    assert frame_of(data) == ((5, 8), 1)
    assert load_photo(data, max_side=None).original_size == (5, 8)


def test_a_photo_is_reduced_after_it_is_turned(tmp_path: Path) -> None:
    path = tmp_path / "1.png"
    path.write_bytes(CARRIERS["PNG, EXIF"](np.zeros((200, 120), np.uint8), 6))
    photo = load_photo(path, max_side=100)
    assert (photo.pixels.shape, photo.original_size) == ((60, 100, 3), (120, 200))
    assert frame_of(path).upright_size == (120, 200)


def test_what_is_no_photo_has_no_frame(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="there is no such file"):
        frame_of(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="photo in memory: is not a photo of a known format"):
        frame_of(b"text")


HEIC = Path(__file__).with_name("orientation_6.heic")


def test_heic() -> None:
    """Stored: 64 rows of 128; the upper half is white on the left and black on the right, the lower half is red."""
    if importlib.util.find_spec("pillow_heif") is None:
        with pytest.raises(ImageError, match=r"is a HEIC photo, .*; pip install 'delf-jax\[heif\]' reads it"):
            load_photo(HEIC, max_side=None)
        return
    photo = load_photo(HEIC, max_side=None)
    assert frame_of(HEIC).upright_size == photo.original_size == (128, 64)
    corners = photo.pixels[[8, 8, -8, -8], [8, -8, 8, -8]].astype(int)
    assert np.abs(corners - [[200, 40, 40], [255] * 3, [200, 40, 40], [0] * 3]).max() <= 3
