"""The bytes of a photo file -> upright 8-bit pixels, and how the file stores them.

Pillow decodes. Where it is known to err, OpenCV does it, or the photo is refused.
"""

import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageFile

from delf_jax.errors import ImageError, one_line
from delf_jax.photos.kinds import OpenFile, open_header
from delf_jax.photos.orientation import orientation_of, turned_size, upright
from delf_jax.photos.unsupported import UnsupportedPhoto

MAX_PIXELS = 200_000_000
# What Pillow says of whole files of a kind that it does not know.
_SAYS_UNSUPPORTED = re.compile(r"not supported|unsupported|cannot handle|not identified|not yet|unknown", re.IGNORECASE)
_JPEG2000_SIZES = b"\xff\x4f\xff\x51"
_WORDS = {"LA": "grey with alpha", "CMYK": "CMYK", "P": "palette colours", "PA": "palette colours with alpha"}
_SYCC = re.compile(rb"colr\x01..\0\0\0\x12", re.DOTALL)


class Frame(NamedTuple):
    """How a file stores a photo.

    Attributes:
        size: (height, width) in pixels, as stored.
        orientation: what turns the stored pixels upright, 1 to 8 as in EXIF.
    """

    size: tuple[int, int]
    orientation: int

    @property
    def upright_size(self) -> tuple[int, int]:
        """(height, width) of the upright photo."""
        return turned_size(self.size, self.orientation)


def read_frame(name: str, file: OpenFile) -> Frame:
    """How a file stores its photo; ``name`` is for the errors, which are those of ``decode``."""
    with _opened(name, file, MAX_PIXELS) as image:
        if image.format == "PNG":  # its metadata may come after its pixels
            image.load()
        return Frame(image.size[::-1], orientation_of(image))


def decode(name: str, data: bytes, *, max_side: int | None, max_pixels: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Upright uint8 [h, w] or [h, w, 3], possibly reduced already, and the original (height, width).

    Raises:
        ImageError: no photo, damaged, too large, or of a kind that is not read.
    """
    with _opened(name, io.BytesIO(data), max_pixels) as image:
        factor = _decode_smaller(image, max_side)
        image.load()
        pixels = upright(_to_eight_bit(image, data), orientation_of(image))
        return pixels, (pixels.shape[0] * factor, pixels.shape[1] * factor)


def over_white(pixels: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 4] RGBA shown on white: uint8 [h, w, 3]."""
    return _over_white(Image.fromarray(np.ascontiguousarray(pixels)))


@contextmanager
def _opened(name: str, file: OpenFile, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    """The picture, whose size is checked; an ImageError for whatever is raised here or while it is used."""
    width = height = 0
    try:
        image = open_header(file)
        if image is None:
            raise ImageError(name, "is not a photo of a known format; convert it to JPEG or PNG")
        with image:
            width, height = image.size
            if width * height > max_pixels:
                reason = (
                    f"{width} x {height} pixels are above the limit of {max_pixels / 1e6:g} megapixels; save it smaller"
                )
                raise ImageError(name, reason)
            if width < 1 or height < 1:
                raise ImageError(name, "its header gives no size; save it again")
            yield image
    except ImageError:
        raise
    except UnsupportedPhoto as error:
        raise ImageError(name, f"is {error.kind}, which is not read; {error.remedy}") from None
    except MemoryError:
        raise ImageError(name, f"{width} x {height} pixels need more memory than there is; save it smaller") from None
    except Exception as error:  # parsers raise anything for hostile bytes
        if _SAYS_UNSUPPORTED.search(str(error)):
            reason = f"its kind is not read ({one_line(error)}); convert it to a JPEG or PNG of 8 bits"
        else:
            reason = f"the file is damaged or cut short ({one_line(error)}); fetch it again"
        raise ImageError(name, reason) from None


def _decode_smaller(image: ImageFile.ImageFile, max_side: int | None) -> int:
    """Lets the JPEG decoder reduce a photo that is much larger than ``max_side``; returns the exact factor, or 1."""
    if image.format != "JPEG" or max_side is None:
        return 1
    width, height = image.size
    for factor in (8, 4, 2):
        if max(width, height) >= 1.5 * factor * max_side and width % factor == 0 and height % factor == 0:
            image.draft(None, (width // factor, height // factor))
            return factor
    return 1


def _to_eight_bit(image: Image.Image, data: bytes) -> np.ndarray:
    """uint8 [h, w] or [h, w, 3] of a decoded picture, as it is stored."""
    bits = _bits(image, data)
    key = image.info.get("transparency") if image.format == "PNG" else None
    if bits > 8 and not image.mode.startswith("I") and (image.format == "JPEG2000" or key is not None):
        return _deep_colours(image, data, bits)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        deep = np.asarray(image)
        # Pillow moves samples of JPEG 2000 to the upper bits, and leaves those of TIFF where they are.
        grey = np.right_shift(deep, bits - 8 if image.format == "TIFF" else 8).astype(np.uint8)
        if getattr(image, "tag_v2", {}).get(262) == 0:
            grey = 255 - grey
        return grey if key is None else np.where(deep == key, np.uint8(255), grey)
    if image.mode in ("I", "F"):
        raise UnsupportedPhoto(f"a {image.format} of numbers whose white is not known")
    if bits < 8 and image.format == "JPEG2000":
        if image.mode in ("P", "PA"):
            raise UnsupportedPhoto(f"a JPEG 2000 with a palette of {bits} bits")
        # Pillow moves these samples to the upper bits too, where white would be grey.
        levels = (1 << bits) - 1
        image = image.point([(value >> (8 - bits)) * 255 // levels for value in range(256)] * len(image.getbands()))
    if 1 < bits < 8 and image.mode == "L" and isinstance(key, int):
        # Pillow scales the pixels, but not the value that is transparent.
        image.info["transparency"] = key * 255 // ((1 << bits) - 1)
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        return _over_white(image.convert("RGBA"))
    return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits of a sample, for the formats where Pillow does not show them in the mode."""
    if image.format == "PNG":
        return data[24]
    if image.format == "TIFF":
        return int(getattr(image, "tag_v2", {}).get(258, (16,))[0])
    place = data.find(_JPEG2000_SIZES) if image.format == "JPEG2000" else -1
    if place < 0:
        return 16 if image.mode.startswith("I") else 8
    (components,) = struct.unpack_from(">H", data, place + 40)
    each = {data[place + 42 + 3 * component] + 1 for component in range(components)}
    if len(each) > 1 or max(each) > 16:  # the eighth bit marks signed numbers
        raise UnsupportedPhoto("a JPEG 2000 of signed numbers, or of different numbers of bits")
    return each.pop()


def _deep_colours(image: Image.Image, data: bytes, bits: int) -> np.ndarray:
    """uint8 [h, w, 3] of colours of more than 8 bits, which Pillow loses, by OpenCV."""
    if image.mode not in ("RGB", "RGBA") or _SYCC.search(data):  # OpenCV reads no others, and YCC wrong
        raise UnsupportedPhoto(f"a {image.format} of {_WORDS.get(image.mode, 'YCC')} in {bits} bits")
    deep = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if deep is None or deep.dtype != np.uint16 or deep.shape[:2] != image.size[::-1] or deep.ndim != 3:
        raise UnsupportedPhoto(f"a {image.format} of {image.mode} in {bits} bits")
    eight = np.right_shift(deep, bits - 8).astype(np.uint8)
    if eight.shape[2] == 4:
        return over_white(cv2.cvtColor(eight, cv2.COLOR_BGRA2RGBA))
    return cv2.cvtColor(eight, cv2.COLOR_BGR2RGB)


def _over_white(image: Image.Image) -> np.ndarray:
    shown = Image.new("RGB", image.size, "white")
    shown.paste(image, mask=image)
    return np.asarray(shown)
