"""Writes TensorFlow checkpoints as its BundleWriter does, for the tests of what reads them."""

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import google_crc32c
import numpy as np

_BLOCK_BYTES = 4096
_RESTART_EVERY = 16
_TYPES = {"float32": 1, "int64": 9, "float16": 19}
_STRING = 7


def write_bundle(
    prefix: Path, arrays: Mapping[str, np.ndarray], *, objects: Iterable[str] = (), numbered: bool = False
) -> Path:
    """Writes ``prefix.index`` and ``prefix.data-00000-of-00001``; returns the prefix.

    Args:
        prefix: common name of both files.
        arrays: the tensors by name; with `numbered`, by the attributes that lead to them.
        objects: attributes that lead to further objects, which own no tensor (`numbered` only).
        numbered: as in TensorFlow 2: the tensors get numbers, and an object graph says what owns them.
    """
    prefix.parent.mkdir(parents=True, exist_ok=True)
    strings: dict[str, bytes] = {}
    if numbered:
        keys = {name: f"root/variables/{index}/.ATTRIBUTES/VARIABLE_VALUE" for index, name in enumerate(arrays)}
        strings["_CHECKPOINTABLE_OBJECT_GRAPH"] = object_graph(keys, objects)
        arrays = {keys[name]: array for name, array in arrays.items()}
    rows: dict[bytes, bytes] = {b"": _field(1, 1) + _field(3, _field(1, 1))}
    data = bytearray()
    for name in sorted([*arrays, *strings]):
        if name in strings:
            length = _varint(len(strings[name]))
            content = length + struct.pack("<I", masked_crc(struct.pack("<I", len(strings[name])))) + strings[name]
            kind, shape = _STRING, b""
        else:
            content = np.ascontiguousarray(arrays[name]).tobytes()
            kind = _TYPES[arrays[name].dtype.name]
            shape = b"".join(_field(2, _field(1, size)) for size in arrays[name].shape)
        entry = _field(1, kind) + _field(2, shape)
        # Zeros are left out, as in every proto3 message.
        entry += (_field(4, len(data)) if data else b"") + _field(5, len(content))
        rows[name.encode()] = entry + b"\x35" + struct.pack("<I", masked_crc(content))
        data += content
    Path(f"{prefix}.data-00000-of-00001").write_bytes(data)
    Path(f"{prefix}.index").write_bytes(table(rows))
    return prefix


def object_graph(keys: Mapping[str, str], objects: Iterable[str]) -> bytes:
    """A TrackableObjectGraph: one node an attribute, and the list ``root.variables`` that owns every tensor too."""
    numbers: dict[str, int] = {"": 0, "root": 1, "root/variables": 2}
    children: dict[int, dict[str, int]] = {0: {"root": 1}, 1: {"variables": 2}, 2: {}}
    for name in [*keys, *objects]:
        parent = ""
        for part in f"root/{name}".split("/"):
            path = f"{parent}/{part}".lstrip("/")
            if path not in numbers:
                numbers[path] = len(numbers)
                children.setdefault(numbers[parent], {})[part] = numbers[path]
            parent = path
    for index, name in enumerate(keys):
        children[2][str(index)] = numbers[f"root/{name}"]
    owned = {numbers[f"root/{name}"]: key for name, key in keys.items()}
    graph = b""
    for number in range(len(numbers)):
        node = b"".join(_field(1, _field(1, c) + _field(2, n.encode())) for n, c in children.get(number, {}).items())
        if number in owned:
            node += _field(2, _field(1, b"VARIABLE_VALUE") + _field(3, owned[number].encode()))
        graph += _field(1, node)
    return graph


def table(rows: Mapping[bytes, bytes], *, kind: int = 0) -> bytes:
    """A sorted string table in blocks of about 4 KiB; `kind` is what it says of their compression."""
    file = bytearray()

    def add(block_rows: list[tuple[bytes, bytes]]) -> bytes:
        content = _block(block_rows)
        handle = _varint(len(file)) + _varint(len(content))
        file.extend(content + bytes([kind]) + struct.pack("<I", masked_crc(content + bytes([kind]))))
        return handle

    index: list[tuple[bytes, bytes]] = []
    waiting: list[tuple[bytes, bytes]] = []
    for key in sorted(rows):
        waiting.append((key, rows[key]))
        if len(_block(waiting)) >= _BLOCK_BYTES:
            index.append((key, add(waiting)))
            waiting = []
    if waiting:
        index.append((waiting[-1][0], add(waiting)))
    handles = add([]) + add(index)
    return bytes(file) + handles.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def masked_crc(data: bytes) -> int:
    """CRC32C as LevelDB stores it."""
    crc = google_crc32c.value(data)
    return ((crc >> 15) | (crc << 17)) + 0xA282EAD8 & 0xFFFFFFFF


def _block(rows: list[tuple[bytes, bytes]]) -> bytes:
    content, restarts, before = bytearray(), [], b""
    for number, (key, value) in enumerate(rows):
        shared = 0
        if number % _RESTART_EVERY == 0:
            restarts.append(len(content))
        else:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        content += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        before = key
    restarts = restarts or [0]
    return bytes(content) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])
