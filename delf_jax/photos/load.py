"""``load_photo``, the one image loader: a file, address or array -> upright 8-bit RGB pixels of limited size."""

import errno
import hashlib
import io
import os
import stat
from typing import NamedTuple

import cv2
import fsspec
import numpy as np

from delf_jax.errors import ImageError, one_line
from delf_jax.photos import tar_and_parquet
from delf_jax.photos.decode import MAX_PIXELS, Frame, decode, over_white, read_frame

MAX_FILE_BYTES = 1 << 30

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

    Files: JPEG, MPO, PNG, WebP, TIFF, GIF, BMP, AVIF, JPEG 2000, PPM, and HEIC with the extra ``heif``; the kinds that
    would be read wrong are refused. The orientation in EXIF, XMP or the container is applied, transparent areas become
    white, 16-bit samples keep their high byte, animations and multi-page files give their first frame, colour profiles
    are ignored. The size in the header is checked before pixels are decoded.

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
        pixels, original_size = decode(name, data, max_side=max_side, max_pixels=max_pixels)
    reduced = reduced_size(original_size, max_side)
    if reduced != pixels.shape[:2]:
        pixels = cv2.resize(pixels, reduced[::-1], interpolation=cv2.INTER_AREA)
    if pixels.ndim == 2:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    return Photo(np.ascontiguousarray(pixels), original_size, content_hash)


def frame_of(source: str | os.PathLike[str] | bytes) -> Frame:
    """How a photo is stored: its size, and what turns it upright as ``load_photo`` turns it.

    Args:
        source: a path, an fsspec address, or the bytes of a file.

    Raises:
        ImageError: as ``load_photo``.
    """
    if isinstance(source, bytes):
        return read_frame("photo in memory", io.BytesIO(source))
    name = os.fspath(source)
    is_readable = "://" not in name and os.path.isfile(name) and os.access(name, os.R_OK)
    with open(name, "rb") if is_readable else io.BytesIO(read_bytes(name)) as file:
        return read_frame(name, file)


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
        return over_white(array)
    return array
