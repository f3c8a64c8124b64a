"""Protocol-buffers messages field by field, without generated code: enough for other projects' binary files."""

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_VARINT, _BYTES, _FLOAT = 0, 2, 5
_FIXED = {1: 8, _FLOAT: 4}


class Field(NamedTuple):
    """One field of a message.

    Attributes:
        number: as in the message's schema.
        value: an integer (varint), or the field's bytes (length-delimited and fixed fields).
    """

    number: int
    value: int | memoryview

    @property
    def data(self) -> memoryview:
        """The field's bytes; ValueError where it holds an integer."""
        if isinstance(self.value, int):
            raise ValueError("an integer where bytes are expected")
        return self.value

    @property
    def integer(self) -> int:
        """The field's unsigned integer; ValueError where it holds bytes."""
        if not isinstance(self.value, int):
            raise ValueError("bytes where an integer is expected")
        return self.value

    @property
    def text(self) -> str:
        """The field's bytes as UTF-8."""
        return str(self.data, "utf-8")

    @property
    def float32(self) -> float:
        """The field's four bytes as a number; ValueError where it is none."""
        if len(self.data) != 4:
            raise ValueError("a float that is not four bytes long")
        return float(struct.unpack("<f", self.data)[0])


def fields(message: memoryview | bytes) -> Iterator[Field]:
    """The fields of a message, in its order.

    Raises:
        ValueError: the bytes are no such message.
    """
    message = memoryview(message)
    place = 0
    while place < len(message):
        key, place = varint(message, place)
        number, wire = key >> 3, key & 7
        if number == 0 or wire not in (_VARINT, _BYTES, *_FIXED):
            raise ValueError("a field of an unknown kind")
        if wire == _VARINT:
            value, place = varint(message, place)
            yield Field(number, value)
            continue
        length, place = varint(message, place) if wire == _BYTES else (_FIXED[wire], place)
        if place + length > len(message):
            raise ValueError("a field reaches beyond the end of its message")
        yield Field(number, message[place : place + length])
        place += length


def varint(message: memoryview | bytes, place: int) -> tuple[int, int]:
    """The unsigned integer that begins at `place`, and the place behind it; ValueError where there is none."""
    number = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise ValueError("an integer that is cut off")
        byte = message[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
    raise ValueError("an integer of more than 64 bits")


def integers(field: Field) -> list[int]:
    """The integers of a repeated field, which come one by one or packed."""
    if isinstance(field.value, int):
        return [field.value]
    numbers, place = [], 0
    while place < len(field.value):
        number, place = varint(field.value, place)
        numbers.append(number)
    return numbers


def encoded(number: int, value: int | float | bytes) -> bytes:
    """One field of a message: an integer as a varint (a negative one as 64 bits), a float as four bytes, or bytes."""
    if isinstance(value, int):
        return _varint_bytes(number << 3 | _VARINT) + _varint_bytes(value % 2**64)
    if isinstance(value, float):
        return _varint_bytes(number << 3 | _FLOAT) + struct.pack("<f", value)
    return _varint_bytes(number << 3 | _BYTES) + _varint_bytes(len(value)) + value


def packed(numbers: Iterable[int]) -> bytes:
    """Unsigned integers as the bytes of one packed field; ``integers`` reads them back."""
    return b"".join(map(_varint_bytes, numbers))


def _varint_bytes(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
