"""Protocol-buffers messages field by field, without generated code: enough to read other projects' binary files."""

import struct
from collections.abc import Iterator
from typing import NamedTuple


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
        """The field's four bytes as a number."""
        return float(struct.unpack("<f", self.data)[0])


def fields(message: memoryview | bytes) -> Iterator[Field]:
    """The fields of a message, in its order.

    Raises:
        ValueError, IndexError, KeyError: the bytes are no such message.
    """
    message = memoryview(message)
    place = 0
    while place < len(message):
        key, place = varint(message, place)
        wire = key & 7
        if wire == 0:
            value, place = varint(message, place)
            yield Field(key >> 3, value)
            continue
        length, place = varint(message, place) if wire == 2 else ({1: 8, 5: 4}[wire], place)
        if place + length > len(message):
            raise ValueError("a field reaches beyond the end of its message")
        yield Field(key >> 3, message[place : place + length])
        place += length


def varint(message: memoryview | bytes, place: int) -> tuple[int, int]:
    """The unsigned integer that begins at `place`, and the place behind it."""
    number = 0
    for shift in range(0, 70, 7):
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
