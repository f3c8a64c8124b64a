"""What a file is by its first bytes: pictures of the formats that are read, and the names of others."""

import importlib
import io

from PIL import Image, ImageFile, JpegImagePlugin

from delf_jax.photos.names import HEIF_EXTRA, reads_heif
from delf_jax.photos.tiff import Tiff
from delf_jax.photos.unsupported import UnsupportedPhoto

# Pillow knows more formats. Some start programs (EPS), none of them holds photos, and each can be attacked.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000", "PPM")
Image.init()

OpenFile = io.BytesIO | io.BufferedReader
_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_NOT_READ = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\xd8\xff\xf7", "JPEG-LS"),
    (b"II\xbc", "JPEG XR"),
    (b"FUJIFILMCCD-RAW", "raw"),
    (b"IIU\0", "raw"),
    (b"IIRO", "raw"),
    (b"IIRS", "raw"),
    (b"MMOR", "raw"),
    (b"FOVb", "raw"),
    (b"8BPS", "Photoshop"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance"),
    (b"PF\n", "PFM"),
    (b"Pf\n", "PFM"),
    (b"P7\n", "PAM"),
)


class _Jpeg(JpegImagePlugin.JpegImageFile):
    """A JPEG, or the first picture of an MPO, in which cameras keep several JPEGs."""

    def _read_dpi_from_exif(self) -> None:
        """The resolution is not needed, and reading it warns about damaged EXIF."""


_OWN = {"JPEG": _Jpeg, "TIFF": Tiff}


def open_header(file: OpenFile) -> ImageFile.ImageFile | None:
    """As ``Image.open``, without its limit of pixels, whose warning cannot be caught in one thread only.

    Returns:
        The picture, whose pixels are not decoded yet; None if its format is not known.

    Raises:
        UnsupportedPhoto: its format is known and not read.
    """
    data = file.read(256)
    file.seek(0)
    for begin, kind in _NOT_READ:
        if data.startswith(begin):
            raise UnsupportedPhoto(f"a {kind} picture")
    if data[4:8] == b"ftyp":
        return _open_container(file, data)
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        if accept is None or accept(data[:16]) is True:
            image: ImageFile.ImageFile = _OWN.get(name, factory)(file, "")
            return image
    return None


def _open_container(file: OpenFile, data: bytes) -> ImageFile.ImageFile | None:
    """AVIF or HEIF: the brands say which of them may be read as what."""
    listed = data[16 : int.from_bytes(data[:4], "big")]
    brands = {data[8:12], *(listed[place : place + 4] for place in range(0, len(listed), 4))}
    image: ImageFile.ImageFile
    if brands & {b"avif", b"avis"} and "AVIF" in Image.OPEN:
        image = Image.OPEN["AVIF"][0](file, "")
        return image
    if brands & _HEIF:
        if not reads_heif():
            raise UnsupportedPhoto("a HEIC photo", remedy=f"{HEIF_EXTRA} reads it, or convert it to JPEG")
        image = importlib.import_module("pillow_heif").HeifImageFile(file, "")
        return image
    if b"crx " in brands:
        raise UnsupportedPhoto("a raw picture")
    return None
