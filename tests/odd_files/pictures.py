"""Small pictures, written by the letter of their formats where no library writes them."""

import struct
import zlib

import numpy as np
from PIL import Image


def seen(samples: np.ndarray) -> np.ndarray:
    """uint8 RGB of 8-bit samples [h, w], or [h, w, c] with c = 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA, over white."""
    samples = samples.astype(np.int64).reshape(*samples.shape[:2], -1)
    colour, alpha = (samples[..., :1], samples[..., 1:]) if samples.shape[2] < 3 else np.split(samples, [3], 2)
    alpha = alpha[..., :1] if alpha.shape[2] else np.full_like(colour[..., :1], 255)
    shown = np.round(colour * (alpha / 255) + 255 - alpha)
    return np.broadcast_to(shown, (*shown.shape[:2], 3)).astype(np.uint8)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples: np.ndarray, bits: int, colour_type: int, *, before: bytes = b"", after: bytes = b"") -> bytes:
    """A PNG of samples [h, w] or [h, w, c] of ``bits`` bits, with chunks before and after its pixels."""
    rows = b""
    for row in samples.reshape(len(samples), -1):
        digits = "".join(format(int(value), f"0{bits}b") for value in row)
        digits += "0" * (-len(digits) % 8)
        rows += b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big")
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], bits, colour_type, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + before + png_chunk(b"IDAT", zlib.compress(rows)) + after
    return b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IEND", b"")


def tiff(size: tuple[int, int], pixels: bytes, **tags: int | tuple[int, ...]) -> bytes:
    """A little-endian TIFF of (height, width) in one strip. ``tags`` are ``t262=1``, as numbers of 16 bits."""
    given = {256: (size[1],), 257: (size[0],), 259: (1,), 273: (8,), 278: (size[0],), 279: (len(pixels),)}
    for name, value in tags.items():
        given[int(name[1:])] = value if isinstance(value, tuple) else (value,)
    pixels += b"\0" * (len(pixels) % 2)
    directory = 8 + len(pixels)
    beyond = directory + 2 + 12 * len(given) + 4
    entries, rest = b"", b""
    for tag, values in sorted(given.items()):
        data = struct.pack(f"<{len(values)}H", *values)
        if len(data) > 4:
            data, rest = struct.pack("<I", beyond + len(rest)), rest + data
        entries += struct.pack("<HHI", tag, 3, len(values)) + data.ljust(4, b"\0")
    return (
        struct.pack("<2sHI", b"II", 42, directory) + pixels + struct.pack("<H", len(given)) + entries + bytes(4) + rest
    )


def jpeg_2000(size: tuple[int, int], bits: int, channels: int, body: str) -> bytes:
    """A codestream of (height, width) in one tile, without loss and levels; ``body`` are its packets in hexadecimal."""
    sizes = struct.pack(">HIIIIIIIIH", 0, size[1], size[0], 0, 0, size[1], size[0], 0, 0, channels)
    sizes += bytes([bits - 1, 1, 1]) * channels
    coding = bytes.fromhex("0000 0001 0000 0404 0001")
    markers = ((0x51, sizes), (0x52, coding), (0x5C, bytes([0x40, bits << 3])))
    header = b"".join(struct.pack(">BBH", 255, marker, 2 + len(data)) + data for marker, data in markers)
    packets = bytes.fromhex(body)
    tile = struct.pack(">HHHIBB", 0xFF90, 10, 0, 14 + len(packets), 0, 1) + b"\xff\x93" + packets
    return b"\xff\x4f" + header + tile + b"\xff\xd9"


def exif(orientation: int, *, order: str = "<") -> bytes:
    """EXIF with this tag alone."""
    made = Image.Exif()
    made.endian = order
    made[0x0112] = orientation
    return made.tobytes()


def xmp(orientation: int) -> bytes:
    """XMP with this property alone."""
    return b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>' % orientation


def text_profile(orientation: int) -> bytes:
    """EXIF as ImageMagick writes it into a text of a PNG."""
    digits = exif(orientation).hex()
    lines = "\n".join(digits[place : place + 72] for place in range(0, len(digits), 72))
    return f"\nexif\n{len(digits) // 2:8}\n{lines}\n".encode()
