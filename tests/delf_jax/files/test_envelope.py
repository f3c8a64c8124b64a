"""What an envelope holds comes back, what is damaged is refused, and the files of 0.1 are read."""

import hashlib
import json

import pytest

from delf_jax.files.envelope import (
    Envelope,
    EnvelopeError,
    NewerVersionError,
    OtherFormatError,
    decode_envelope,
    encode_envelope,
)

BODY = {"photos": 3, "threshold": -2.5, "name": "größe \udc80", "files": {"a": [1, None]}}
FORMAT = "delf-jax index"


def test_what_is_encoded_comes_back() -> None:
    data = encode_envelope(FORMAT, 2, BODY)
    assert decode_envelope(data, format=FORMAT, newest=2) == Envelope(2, BODY)
    assert json.loads(data)["format"] == FORMAT


def test_the_checksum_is_of_format_version_and_body() -> None:
    file = json.loads(encode_envelope(FORMAT, 1, {"b": 1}))
    text = '{"body":{"b":1},"format":"delf-jax index","version":1}'
    assert file["sha256"] == hashlib.sha256(text.encode()).hexdigest()


def test_every_flipped_bit_that_changes_what_it_says_is_noticed() -> None:
    data = encode_envelope(FORMAT, 1, BODY)
    good = json.loads(data)
    for position in range(len(data)):
        broken = bytearray(data)
        broken[position] ^= 1 << position % 8
        try:
            same = json.loads(broken) == good
        except ValueError:
            same = False
        if not same:
            with pytest.raises(EnvelopeError):
                decode_envelope(bytes(broken), format=FORMAT, newest=9)


@pytest.mark.parametrize("data", [b"", b"[]", b"[" * 100_000, b"\xff", b"{}", encode_envelope(FORMAT, 1, BODY)[:-9]])
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    with pytest.raises(EnvelopeError):
        decode_envelope(data, format=FORMAT, newest=1)


def test_other_formats_and_newer_versions_are_told_apart_from_damage() -> None:
    data = encode_envelope(FORMAT, 3, BODY)
    with pytest.raises(OtherFormatError) as other:
        decode_envelope(data, format="delf-jax predictor", newest=3)
    assert other.value.format == FORMAT
    with pytest.raises(NewerVersionError) as newer:
        decode_envelope(data, format=FORMAT, newest=2)
    assert newer.value.version == 3
    with pytest.raises(EnvelopeError, match="checksum"):  # damage that only looks newer
        decode_envelope(data.replace(b'"version": 3', b'"version": 4'), format=FORMAT, newest=2)


def digest(value: object, *, spaces: bool) -> str:
    text = json.dumps(value, sort_keys=True, separators=(", ", ": ") if spaces else (",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_files_of_0_1_are_read() -> None:
    nested = BODY | {"version": 2}
    for name in ("store", "run"):
        file = {"format": "x", "version": 2, "sha256": digest(nested, spaces=False), name: nested}
        assert decode_envelope(json.dumps(file).encode(), format="x", newest=2) == Envelope(2, nested)
        with pytest.raises(EnvelopeError, match="checksum"):
            decode_envelope(json.dumps(file | {"version": 1}).encode(), format="x", newest=2)
        with pytest.raises(NewerVersionError):
            decode_envelope(json.dumps(file).encode(), format="x", newest=1)

    flat = {"format": FORMAT, "version": 1, **BODY}
    flat["sha256"] = digest(flat, spaces=True)
    assert decode_envelope(json.dumps(flat).encode(), format=FORMAT, newest=1) == Envelope(1, BODY)
    with pytest.raises(EnvelopeError, match="checksum"):
        decode_envelope(json.dumps(flat | {"photos": 4}).encode(), format=FORMAT, newest=1)

    predictor = {"kind": "predictor", "version": 1, **BODY}
    data = json.dumps(predictor).encode()
    assert decode_envelope(data, format="delf-jax predictor", newest=1) == Envelope(1, BODY)
    with pytest.raises(OtherFormatError):
        decode_envelope(data, format=FORMAT, newest=1)
