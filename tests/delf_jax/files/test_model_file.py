"""Model files: what is written comes back, and what is damaged is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from delf_jax.errors import ModelError
from delf_jax.files import model_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    model_file.write(path, TENSORS, {"kind": "test", "numbers": [1.5, 2]})
    return path


TENSORS = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "a": np.float16([1, 2]),
    "none": np.zeros((0, 4), np.float32),
    "one": np.array(3.0, np.float32),
}


def test_what_is_written_comes_back(path: Path) -> None:
    description, tensors = model_file.read(path)
    assert description["kind"] == "test"
    assert description["numbers"] == [1.5, 2]
    assert tensors.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(tensors[name], array)


def test_the_same_content_gives_the_same_bytes(path: Path) -> None:
    before = model_file.fingerprint(path)
    model_file.write(path, dict(reversed(TENSORS.items())), {"numbers": [1.5, 2], "kind": "test"})
    assert model_file.fingerprint(path) == before
    assert len(before) == 64
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_every_changed_byte_of_the_tensors_and_every_length_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for position in range(start, len(whole)):
        broken = bytearray(whole)
        broken[position] ^= 0x11
        path.write_bytes(broken)
        with pytest.raises(ModelError, match=r"small\.safetensors: "):
            model_file.read(path)
    for length in range(0, len(whole), 11):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"small\.safetensors: "):
            model_file.read(path)


def test_missing_newer_and_foreign_files_are_told_apart(path: Path) -> None:
    with pytest.raises(ModelError, match="no such model file"):
        model_file.read(path.with_name("other.safetensors"))
    with pytest.raises(ModelError, match="cannot be read"):
        model_file.fingerprint(path.with_name("other.safetensors"))
    save_file(dict(TENSORS), path)
    with pytest.raises(ModelError, match="not a delf-jax model"):
        model_file.read(path)
    newer = {"format_version": model_file.FORMAT_VERSION + 1, "checksum": ""}
    save_file({"a": TENSORS["a"]}, path, metadata={model_file.METADATA_KEY: json.dumps(newer)})
    with pytest.raises(ModelError, match="newer than this delf-jax reads"):
        model_file.read(path)


def test_a_failed_write_leaves_the_old_file(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(TypeError):
        model_file.write(path, TENSORS, {"kind": object()})
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
