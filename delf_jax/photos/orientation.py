"""Which way up a photo is stored: the one place that decides it, for pixels, sizes and boxes."""

import re
import struct

import cv2
import numpy as np
from PIL import Image

_TAG = 274
_XMP = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])\s*["'<]""")


def orientation_of(image: Image.Image) -> int:
    """Orientation of the stored pixels, 1 to 8 as in EXIF 2.32; 1 if the file has none or a damaged one.

    The first of these that says one: EXIF or TIFF's tag; EXIF as text in a PNG; XMP. In AVIF it is what the container
    says, and HEIF is turned by its decoder: for both, XMP does not count.

    Args:
        image: opened; of a PNG, whose metadata may come last, also decoded.
    """
    if image.format == "HEIF":
        return 1
    stated: int | None = getattr(image, "tag_v2", {}).get(_TAG)
    if stated is None:
        stated = _of_exif(image.info.get("exif", b"")) or _of_exif(_text_profile(image))
    if stated is None and image.format != "AVIF":
        stated = _of_xmp(image.info.get("XML:com.adobe.xmp") or image.info.get("xmp") or b"")
    return stated if stated is not None and stated in range(1, 9) else 1


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(height, width) of the upright photo, from that of the stored one."""
    return size[::-1] if orientation >= 5 else size


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns stored pixels upright."""
    if orientation >= 5:
        pixels = cv2.transpose(pixels)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return pixels if flip is None else cv2.flip(pixels, flip)


def _of_exif(exif: bytes) -> int | None:
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return None
    try:
        (directory,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, directory)
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(order + "HH", exif, entry)
            if tag == _TAG:
                return int(struct.unpack_from(order + ("I" if kind == 4 else "H"), exif, entry + 8)[0])
    except struct.error:
        pass
    return None


def _text_profile(image: Image.Image) -> bytes:
    """EXIF as ImageMagick writes it into texts of a PNG: a name, a length, and hexadecimal digits, line by line."""
    for name in ("Raw profile type exif", "Raw profile type APP1"):
        text = image.info.get(name)
        if isinstance(text, str):
            try:
                return bytes.fromhex("".join(text.split()[2:]))
            except ValueError:
                return b""
    return b""


def _of_xmp(xmp: str | bytes) -> int | None:
    found = _XMP.search(xmp.encode(errors="replace") if isinstance(xmp, str) else xmp)
    return int(found[1]) if found else None
