"""``load_photo``, the one image loader: a file, address or array -> upright 8-bit RGB pixels of limited size."""

import errno
import hashlib
import io
import os
import stat
import struct
from typing import NamedTuple

import cv2
import fsspec
import numpy as np
from PIL import Image, JpegImagePlugin

from delf_jax.errors import ImageError, one_line
from delf_jax.photos import tar_and_parquet

MAX_PIXELS = 200_000_000
MAX_FILE_BYTES = 1 << 30

# Pillow knows more formats. Some start programs (EPS), none of them holds photos, and each can be attacked.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "JPEG2000", "PPM")
Image.init()

Source = str | os.PathLike[str] | bytes | np.ndarray


class Photo(NamedTuple):
    """One photo, ready for the extractor.

    A point of the reduced photo lies at ``(reduced + 0.5) * original_size / reduced_size - 0.5`` of the original.

    Attributes:
        pixels: uint8 [h, w, 3] RGB, upright, longest side at most ``max_side``.
        original_size: (height, width) in pixels, upright, before the reduction.
        content_hash: sha256 of the file's bytes in hexadecimal; None for an array.
    """

    pixels: np.ndarray
    original_size: tuple[int, int]
    content_hash: str | None = None


def load_photo(source: Source, *, max_side: int | None, max_pixels: int = MAX_PIXELS) -> Photo:
    """Reads a photo, turns it upright, and reduces it to ``max_side``; may be called from any thread.

    Files: JPEG, PNG, WebP, TIFF, GIF, BMP, AVIF, JPEG 2000 and PPM, in any colour mode. EXIF orientation is applied,
    transparent areas become white, 16-bit samples keep their high byte, animations and multi-page files give their
    first frame, colour profiles are ignored. The size in the header is checked before pixels are decoded.

    Args:
        source: a path, an fsspec address (``s3://...``), the bytes of a file, or a uint8 array: [H, W, 3] RGB,
            [H, W, 4] RGBA, [H, W] grey.
        max_side: larger photos are reduced to this longest side in pixels, by area averaging; None keeps the size.
        max_pixels: photos with more pixels are refused.

    Raises:
        ImageError: the source cannot be read as a photo; the message gives the reason and a remedy.
    """
    if isinstance(source, np.ndarray):
        pixels, content_hash = _from_array(source), None
        original_size = pixels.shape[:2]
    else:
        name = "photo in memory" if isinstance(source, bytes) else os.fspath(source)
        data = source if isinstance(source, bytes) else read_bytes(name)
        content_hash = hashlib.sha256(data).hexdigest()
        pixels, original_size = _decode(name, data, max_side, max_pixels)
    reduced = reduced_size(original_size, max_side)
    if reduced != pixels.shape[:2]:
        pixels = cv2.resize(pixels, reduced[::-1], interpolation=cv2.INTER_AREA)
    if pixels.ndim == 2:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    return Photo(np.ascontiguousarray(pixels), original_size, content_hash)


def reduced_size(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    """(height, width) after the longest side is reduced to ``max_side`` pixels; at least 1, never enlarged."""
    longest = max(size)
    if max_side is None or longest <= max_side:
        return size
    return max(1, round(size[0] * max_side / longest)), max(1, round(size[1] * max_side / longest))


def read_bytes(name: str) -> bytes:
    """The bytes of a photo file, from a path or an fsspec address; raises ImageError if it cannot be read."""
    try:
        if tar_and_parquet.is_member(name) and not os.path.exists(name):
            data = tar_and_parquet.read(name)
        else:
            data = _read_address(name) if "://" in name else _read_local(name)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(name, "there is no such file; check the path") from None
    except PermissionError:
        raise ImageError(name, "permission to read it is denied; change its permissions or run as its owner") from None
    except IsADirectoryError:
        raise ImageError(name, "is a folder; give the photos in it") from None
    except ImportError as error:
        raise ImageError(name, f"its protocol needs a package that is not installed: {one_line(error)}") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ImageError(name[:80] + "...", "the path is too long; check it") from None
        raise ImageError(name, f"cannot be read ({one_line(error)}); check the disk or the connection") from None
    except Exception as error:  # object stores raise errors of their own libraries
        raise ImageError(name, f"cannot be read ({one_line(error)}); check the address and its credentials") from None
    if not data:
        raise ImageError(name, "the file is empty; fetch it again")
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(name, f"the file is larger than {MAX_FILE_BYTES >> 20} MiB; save the photo smaller")
    return data


def _read_local(name: str) -> bytes:
    mode = os.stat(name).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(name)
    if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
        raise ImageError(name, "is not a regular file; give a photo file")
    with open(name, "rb") as file:
        return file.read(MAX_FILE_BYTES + 1)


def _read_address(name: str) -> bytes:
    filesystem, path = fsspec.core.url_to_fs(name)
    with filesystem.open(path, "rb") as file:
        data: bytes = file.read(MAX_FILE_BYTES + 1)
    return data


def _from_array(array: np.ndarray) -> np.ndarray:
    name = f"array of shape {array.shape} and type {array.dtype}"
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ImageError(name, "a photo is [height, width, 3] RGB, [height, width, 4] RGBA or [height, width] grey")
    if array.dtype != np.uint8:
        raise ImageError(name, "pixels are uint8 from 0 to 255; scale and convert it")
    if array.size == 0:
        raise ImageError(name, "it has no pixels; give at least one row and one column")
    if array.ndim == 3 and array.shape[2] == 4:
        return np.asarray(_over_white(Image.fromarray(np.ascontiguousarray(array))))
    return array


def _decode(name: str, data: bytes, max_side: int | None, max_pixels: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Upright uint8 [h, w] or [h, w, 3], possibly reduced already, and the original (height, width)."""
    width = height = 0
    try:
        with _open_header(name, data) as image:
            width, height = image.size
            if width * height > max_pixels:
                reason = (
                    f"{width} x {height} pixels are above the limit of {max_pixels / 1e6:g} megapixels; save it smaller"
                )
                raise ImageError(name, reason)
            if width < 1 or height < 1:
                raise ImageError(name, "its header gives no size; save it again")
            factor = _decode_smaller(image, max_side)
            image.load()
            pixels = _upright(_to_eight_bit(name, image), _orientation(image))
    except ImageError:
        raise
    except MemoryError:
        raise ImageError(name, f"{width} x {height} pixels need more memory than there is; save it smaller") from None
    except Exception as error:  # parsers raise anything for hostile bytes
        raise ImageError(name, f"the file is damaged or cut short ({one_line(error)}); fetch it again") from None
    return pixels, (pixels.shape[0] * factor, pixels.shape[1] * factor)


class _Jpeg(JpegImagePlugin.JpegImageFile):
    def _read_dpi_from_exif(self) -> None:
        """The resolution is not needed, and reading it warns about damaged EXIF."""


def _open_header(name: str, data: bytes) -> Image.Image:
    """As ``Image.open``, without its limit of pixels, whose warning cannot be caught in one thread only."""
    for format_name in FORMATS:
        if format_name not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[format_name]
        if accept is None or accept(data[:16]) is True:
            image: Image.Image = (_Jpeg if format_name == "JPEG" else factory)(io.BytesIO(data), "")
            return image
    raise ImageError(name, "is not a photo of a known format; convert it to JPEG or PNG")


def _decode_smaller(image: Image.Image, max_side: int | None) -> int:
    """Lets the JPEG decoder reduce a photo that is much larger than ``max_side``; returns the exact factor, or 1."""
    if image.format != "JPEG" or max_side is None:
        return 1
    width, height = image.size
    for factor in (8, 4, 2):
        if max(width, height) >= 1.5 * factor * max_side and width % factor == 0 and height % factor == 0:
            image.draft(None, (width // factor, height // factor))
            return factor
    return 1


def _to_eight_bit(name: str, image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16"):
        bits = getattr(image, "tag_v2", {}).get(258, (16,))[0]
        return (np.asarray(image) >> (bits - 8)).astype(np.uint8)
    if image.mode == "I" and image.format == "PPM":
        return (np.asarray(image) >> 8).astype(np.uint8)
    if image.mode in ("I", "F"):
        raise ImageError(name, "32-bit samples have no known white; convert it to 8 or 16 bits")
    if image.has_transparency_data:
        return np.asarray(_over_white(image.convert("RGBA")))
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    return np.asarray(image.convert("RGB"))


def _over_white(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 if the photo has none or a damaged one."""
    if image.format == "TIFF":  # Pillow has turned it already
        return 1
    value = _exif_orientation(image.info.get("exif", b""))
    return value if value in range(1, 9) else 1


def _exif_orientation(exif: bytes) -> int:
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, directory)
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(order + "HH", exif, entry)
            if tag == 274:
                return int(struct.unpack_from(order + ("I" if kind == 4 else "H"), exif, entry + 8)[0])
    except struct.error:
        pass
    return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns stored pixels upright by their orientation; EXIF 2.32, tag 0x0112."""
    if orientation >= 5:
        pixels = cv2.transpose(pixels)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return pixels if flip is None else cv2.flip(pixels, flip)
