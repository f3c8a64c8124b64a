"""Damaged and hostile variants of files, the same ones for the same seed."""

import json
import random
from collections.abc import Sequence
from typing import Any

from delf_jax.files.envelope import canonical_sha256

_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**31,
    2**63,
    10**30,
    0.5,
    1e308,
    "",
    "x",
    "../../../../tmp/outside",
    "/etc/passwd",
    "\0",
    "\ud800",
    [],
    {},
    [[]],
    [1, 2, 3],
    {"a": 1},
    ["../x"],
    [None],
    "9" * 5000,
)


def mutated(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """One to eight changes: bits, bytes, numbers, pieces cut, doubled, moved, or taken from another file."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5, 8))):
        place = rng.randrange(len(data) + 1)
        length = min(int(rng.paretovariate(0.7)), len(data) - place)
        kind = rng.randrange(9)
        if kind == 0 and length:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[place : place + length] = rng.randbytes(length)
        elif kind == 2:
            size = rng.choice((1, 2, 4, 8))
            number = rng.choice(_NUMBERS) % (1 << 8 * size)
            data[place : place + size] = number.to_bytes(size, rng.choice(("little", "big")))
        elif kind == 3:
            del data[place : place + length]
        elif kind == 4:
            del data[place:]
        elif kind == 5:
            data[place:place] = data[place : place + length] * rng.choice((1, 2, 50))
        elif kind == 6:
            other = rng.choice(others)
            begin = rng.randrange(len(other) + 1)
            data[place : place + length] = other[begin : begin + length]
        elif kind == 7:
            data[place:place] = bytes(length)
        else:
            begin = rng.randrange(len(data) + 1)
            data[place : place + length] = data[begin : begin + length]
    return bytes(data[: 1 << 20])


def mutated_json(value: Any, rng: random.Random) -> Any:
    """A JSON value with some of its parts replaced, left out, doubled or nested."""
    paths = list(_paths(value, ()))
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _changed(value, rng.choice(paths), rng)
    return value


def _paths(value: Any, path: tuple[Any, ...]) -> Any:
    yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield from _paths(entry, (*path, key))


def _changed(value: Any, path: tuple[Any, ...], rng: random.Random) -> Any:
    if not path:
        kind = rng.randrange(5)
        if kind == 0 and isinstance(value, int):
            return value + rng.choice((-1, 1, 2**16, 2**40))
        if kind == 1 and isinstance(value, list):
            return value * rng.choice((0, 2, 100))
        if kind == 2 and isinstance(value, str):
            return mutated(value.encode(errors="replace"), [b"../"], rng).decode(errors="replace")
        if kind == 3:
            return [value]
        return rng.choice(_VALUES)
    key, *rest = path
    try:
        inner = value[key]
    except (KeyError, IndexError, TypeError):
        return value
    copy = dict(value) if isinstance(value, dict) else list(value)
    if not rest and rng.randrange(6) == 0:
        del copy[key]
    else:
        copy[key] = _changed(inner, tuple(rest), rng)
    return copy


def under_checksum(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """A mutation of the body of an envelope, with the checksum made right again: as an attacker would do it."""
    if rng.randrange(4) == 0:
        return mutated(data, others, rng)
    file = json.loads(data)
    covered = {name: file[name] for name in ("format", "version")} | {"body": mutated_json(file["body"], rng)}
    return json.dumps(covered | {"sha256": canonical_sha256(covered)}).encode()


def plain_json(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """A mutation of JSON that no checksum guards."""
    if rng.randrange(3) == 0:
        return mutated(data, others, rng)
    return json.dumps(mutated_json(json.loads(data), rng)).encode()
