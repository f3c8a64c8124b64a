"""``Tiff``: TIFF as Pillow reads it, without the kinds that Pillow reads wrong or calls damaged."""

from typing import Any

from PIL import ImageFile, TiffImagePlugin

from delf_jax.photos.unsupported import UnsupportedPhoto

_SUBFILE, _BITS, _COMPRESSION, _COLOUR, _PLANES = 254, 258, 259, 262, 284
_SAMPLES, _PALETTE, _INKS, _EXTRA, _FORMAT, _DNG = 277, 320, 332, 338, 339, 50706
_PLAIN, _OLD_JPEG, _DEFLATE = 1, 6, 8
_SEPARATE = 2
_COLOURS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette colours", 5: "CMYK", 6: "YCbCr", 8: "Lab"}
_CMYK, _YCBCR = 5, 6
_ALPHA = {1, 2}
_FORMATS = {2: "signed", 3: "floating-point"}
_SMALL_COPY = 1


class Tiff(TiffImagePlugin.TiffImageFile):
    """A TIFF, of 8 or 16 bits, whose pixels stay as they are stored: ``orientation`` tells how to turn them."""

    def _setup(self) -> None:
        tags = self.tag_v2
        _require_readable(tags)
        if tags.get(_COMPRESSION, _PLAIN) == _PLAIN and (tags.get(_PLANES) == _SEPARATE or tags[_COLOUR] == _YCBCR):
            # Pillow's own reader takes separate planes of 16 bits for 8 bits, and leaves out that YCbCr is subsampled.
            # What is compressed it leaves to libtiff, which reads the compression from the file.
            tags[_COMPRESSION] = _DEFLATE
        try:
            super()._setup()
        except SyntaxError:
            raise UnsupportedPhoto(_described(tags)) from None
        if self.mode in ("LA", "La", "PA") and tags.get(_PLANES) == _SEPARATE:
            raise UnsupportedPhoto(f"{_described(tags)} in separate planes")
        self._size = self._tile_size

    def load_prepare(self) -> None:
        """Without Pillow's own limit of pixels."""
        ImageFile.ImageFile.load_prepare(self)

    def load_end(self) -> None:
        """Pillow would turn the picture here."""


def _require_readable(tags: Any) -> None:
    compression = tags.get(_COMPRESSION, _PLAIN)
    if _DNG in tags or tags.get(_SUBFILE, 0) & _SMALL_COPY:
        raise UnsupportedPhoto("a raw photo, or another TIFF that begins with a small copy")
    if _COLOUR not in tags and compression != _OLD_JPEG:
        raise UnsupportedPhoto("a TIFF that does not say what its numbers mean")
    if compression not in TiffImagePlugin.COMPRESSION_INFO:
        raise UnsupportedPhoto(f"a TIFF of compression {compression}")
    unknown_white = max(_values(tags, _FORMAT)) in _FORMATS or max(_values(tags, _BITS)) > 16
    other_inks = tags.get(_COLOUR) == _CMYK and tags.get(_INKS, 1) != 1
    small_palette = _PALETTE in tags and max(tags[_PALETTE]) < 256
    if unknown_white or other_inks or small_palette:
        raise UnsupportedPhoto(_described(tags))


def _described(tags: Any) -> str:
    """Such as "a TIFF of CMYK with alpha (5 numbers of 8 bits a pixel)"."""
    bits = _values(tags, _BITS)
    samples = max(len(bits), tags.get(_SAMPLES, 1))
    words = _COLOURS.get(tags.get(_COLOUR), f"colours of type {tags.get(_COLOUR)}")
    if tags.get(_COLOUR) == _CMYK and tags.get(_INKS, 1) != 1:
        words = "other inks than CMYK"
    if set(_values(tags, _EXTRA)) & _ALPHA and _EXTRA in tags:
        words += " with alpha"
    if _PALETTE in tags and max(tags[_PALETTE]) < 256:
        words += " whose palette has 8 bits in place of 16"
    kind = _FORMATS.get(max(_values(tags, _FORMAT)), "")
    numbers = f"{samples} {kind} number" if kind else f"{samples} number"
    return f"a TIFF of {words} ({numbers}{'s' * (samples > 1)} of {max(bits)} bits a pixel)"


def _values(tags: Any, tag: int) -> tuple[int, ...]:
    value = tags.get(tag, 1)
    return value if isinstance(value, tuple) else (value,)
