"""TensorFlow checkpoints: what is read, and damage that must be noticed."""

import contextlib
from pathlib import Path

import numpy as np
import pytest

from delf_jax.errors import ModelError
from delf_jax.import_weights.tensor_bundle import TensorBundle
from tests.delf_jax.import_weights.bundle_writer import table, write_bundle


def some_arrays() -> dict[str, np.ndarray]:
    """Enough names that the index needs several blocks, with long common beginnings."""
    draw = np.random.default_rng(0)
    arrays = {f"network/block{i // 50}/unit_{i % 50}/weights": draw.normal(size=(2, i % 3)) for i in range(400)}
    floats = {name: array.astype(np.float32) for name, array in arrays.items()}
    return floats | {"global_step": np.array(7, np.int64), "half": np.arange(3, dtype=np.float16)}


@pytest.mark.parametrize("numbered", [False, True])
def test_tensors_come_back_by_their_names(tmp_path: Path, numbered: bool) -> None:
    arrays = some_arrays()
    bundle = TensorBundle(write_bundle(tmp_path / "model.ckpt", arrays, objects=["network/pool"], numbered=numbered))
    names = {f"root/{name}": name for name in arrays} if numbered else {name: name for name in arrays}
    assert set(bundle) == set(names)
    for theirs, name in names.items():
        assert bundle[theirs].dtype == arrays[name].dtype
        assert bundle.shape(theirs) == arrays[name].shape
        np.testing.assert_array_equal(bundle[theirs], arrays[name])
    assert ("root/network/pool" in bundle.objects) == numbered


def test_damage_is_noticed(tmp_path: Path) -> None:
    arrays = some_arrays()
    prefix = write_bundle(tmp_path / "a", arrays)
    index, data = (tmp_path / "a.index").read_bytes(), (tmp_path / "a.data-00000-of-00001").read_bytes()
    name = "network/block1/unit_5/weights"

    (tmp_path / "a.data-00000-of-00001").write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(ModelError, match="global_step does not match its checksum"):
        TensorBundle(prefix)["global_step"]
    (tmp_path / "a.data-00000-of-00001").write_bytes(data[:20])
    with pytest.raises(ModelError, match=f"ends inside {name}"):
        TensorBundle(prefix)[name]
    (tmp_path / "a.data-00000-of-00001").unlink()
    with pytest.raises(ModelError, match=r"a\.data-00000-of-00001: cannot be read .*all its \.data files"):
        TensorBundle(prefix)[name]

    for place in range(0, len(index), 97):
        (tmp_path / "a.index").write_bytes(index[:place] + bytes([index[place] ^ 0x10]) + index[place + 1 :])
        with contextlib.suppress(ModelError):
            assert set(TensorBundle(prefix)) == set(arrays), place  # a byte that nothing is read from
    (tmp_path / "a.index").write_bytes(index[:-1])
    with pytest.raises(ModelError, match="its end is not that of"):
        TensorBundle(prefix)
    (tmp_path / "a.index").write_bytes(table({b"": b"\x08\x01", b"w": b"\x08\x01"}, kind=1))
    with pytest.raises(ModelError, match="a block is compressed"):
        TensorBundle(prefix)
    with pytest.raises(ModelError, match=r"none\.index: cannot be read"):
        TensorBundle(tmp_path / "none")


def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    slices = b"\x08\x01\x12\x04\x12\x02\x08\x02\x28\x08\x3a\x00"
    (tmp_path / "a.index").write_bytes(table({b"": b"\x08\x01", b"embedding": slices}))
    with pytest.raises(ModelError, match="embedding is stored in slices"):
        TensorBundle(tmp_path / "a")["embedding"]
    (tmp_path / "a.index").write_bytes(table({b"": b"\x08\x01\x10\x01"}))
    with pytest.raises(ModelError, match="big-endian"):
        TensorBundle(tmp_path / "a")
