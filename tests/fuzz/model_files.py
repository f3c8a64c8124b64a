"""Readers of weights, of this project's models and of others'."""

import importlib.util
import io
import json
import os
import pickle
import random
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from delf_jax.extraction.head import Head
from delf_jax.files import model_file
from delf_jax.import_weights.delf_config import read_config
from delf_jax.import_weights.keras import import_keras
from delf_jax.import_weights.onnx_file import read_onnx
from delf_jax.import_weights.public.archives import unpacked
from delf_jax.import_weights.public.importing import read_h5
from delf_jax.import_weights.tensor_bundle import TensorBundle
from delf_jax.import_weights.torch_file import read_torch_file
from delf_jax.import_weights.vgg import import_vgg
from delf_jax.loading import read_backbone
from localization.foreground import closed_form, statistics_file
from localization.foreground.statistics import Statistics
from retrieval.asmk import Codebook
from tests.delf_jax.import_weights.bundle_writer import masked_crc, write_bundle
from tests.fuzz.mutate import mutated, mutated_json, plain_json
from tests.fuzz.reader import Reader, of_file
from tests.tiny_model import write_tiny_model


def _head_seeds(folder: Path) -> list[bytes]:
    return [(write_tiny_model(folder / "tiny") / "head.safetensors").read_bytes()]


def _mutate_model(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Behind the checksum too: the description is changed, or the tensors are, and sealed again."""
    if rng.randrange(3) == 0:
        return mutated(data, others, rng)
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    description = json.loads(header.pop("__metadata__")[model_file.METADATA_KEY])
    arrays = load_safetensors(data)
    checksum = description.pop("checksum")
    if rng.randrange(2):
        description = mutated_json(description, rng)
    else:
        name = rng.choice(sorted(arrays))
        array = arrays.pop(name)
        shape = [(), (0,), (1,), (7, 3), array.shape[::-1]][rng.randrange(5)]
        arrays[rng.choice((name, "pca_basis", "x"))] = np.full(shape, rng.choice((0, np.nan, np.inf, 1e38)), np.float32)
        checksum = model_file._checksum(arrays)
    if isinstance(description, dict):
        description["checksum"] = checksum
    return save_safetensors(arrays, metadata={model_file.METADATA_KEY: json.dumps(description)})


def _read_model(path: Path) -> object:
    head = Head.open(path)
    head.require("norm", name="x")
    return head.arrays(), head.dimension


def _read_backbone(path: Path) -> object:
    return read_backbone(path)


def _backbone_seeds(folder: Path) -> list[bytes]:
    write_tiny_model(folder / "tiny")
    return [(folder / "tiny" / "backbone.safetensors").read_bytes()]


def _torch_pickle() -> bytes:
    """A state_dict as torch.save pickles it, by hand."""
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"
        b"K\0K\x02K\x02\x86K\x02K\x01\x86\x89ccollections\nOrderedDict\n)RtR"
    )
    return b"\x80\x02}q\0(X\x01\0\0\0aq\x01" + tensor + b"X\x01\0\0\0bq\x02}X\x01\0\0\0c" + tensor + b"su."


def _torch_seeds(folder: Path) -> list[bytes]:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("m/data.pkl", _torch_pickle())
        archive.writestr("m/data/0", np.arange(4, dtype=np.float32).tobytes())
        archive.writestr("m/byteorder", b"little")
    legacy = [pickle.dumps(entry, 2) for entry in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    storages = pickle.dumps(["0"], 2) + struct.pack("<q", 4) + np.arange(4, dtype=np.float32).tobytes()
    return [out.getvalue(), b"".join(legacy) + _torch_pickle() + storages]


def _mutate_torch(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Behind the zip's checksums too."""
    if data[:2] != b"PK" or rng.randrange(3) == 0:
        return mutated(data, others, rng)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as archive:
        for name in source.namelist():
            content = source.read(name)
            archive.writestr(name, mutated(content, [_torch_pickle()], rng) if rng.randrange(2) else content)
    return out.getvalue()


def _vgg_seeds(folder: Path) -> list[bytes]:
    arrays = {
        f"Conv_{n}": {"kernel": np.zeros((3, 3, 1, 1), np.float32), "bias": np.zeros(1, np.float32)} for n in range(13)
    }
    return [pickle.dumps({"VGG16_0": arrays}, 4), pickle.dumps({"VGG16_0": arrays}, 2)]


def _message(*fields: tuple[int, bytes | int]) -> bytes:
    """A protocol-buffers message of small fields."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += bytes([number << 3, value])
        else:
            out += bytes([number << 3 | 2, len(value) & 0x7F | 0x80, len(value) >> 7]) + value
    return out


def _onnx_seeds(folder: Path) -> list[bytes]:
    tensor = lambda name, n: _message((1, 2), (1, n), (2, 1), (8, name), (9, np.zeros(2 * n, np.float32).tobytes()))  # noqa: E731
    graph = _message(
        (5, tensor(b"layer.weight", 3)),
        (5, tensor(b"onnx::MatMul_7", 2)),
        (1, _message((1, b"x"), (1, b"onnx::MatMul_7"), (3, b"/encoder/query/MatMul"), (4, b"MatMul"))),
    )
    return [_message((1, 8), (7, graph))]


def _keras_seeds(folder: Path) -> list[bytes]:
    names = {f"{layer}/kernel": [1, 1, 3, 2] for layer in ("conv1", *(f"res{n}a_branch2a" for n in range(2, 6)))}
    weights = [{"name": name, "shape": shape, "dtype": "float32"} for name, shape in names.items()]
    layer = {"class_name": "BatchNormalization", "config": {"epsilon": 1e-3}}
    topology = {"model_config": {"config": {"layers": [layer]}}}
    return [
        json.dumps({"modelTopology": topology, "weightsManifest": [{"paths": ["w.bin"], "weights": weights}]}).encode()
    ]


def _read_keras(data: bytes, folder: Path) -> object:
    (folder / "model.json").write_bytes(data)
    (folder / "w.bin").write_bytes(bytes(4 * 5 * 6))
    return import_keras(folder)


def _codebook_seeds(folder: Path) -> list[bytes]:
    Codebook(np.eye(3, 4, dtype=np.float32), "f" * 64).save(folder / "codebook.safetensors")
    return [(folder / "codebook.safetensors").read_bytes()]


def _statistics_seeds(folder: Path) -> list[bytes]:
    maps = np.random.default_rng(0).random((2, 3, 3, 4), np.float32)
    both = Statistics.of_photo(maps[0], label="a") + Statistics.of_photo(maps[1], label="b")
    statistics_file.write(folder / "statistics.safetensors", both)
    return [(folder / "statistics.safetensors").read_bytes()]


def _read_statistics(path: Path) -> object:
    opened = statistics_file.read(path)
    solved = [closed_form.solve(opened, label=label) for label in (None, *opened.classes)]
    return solved, closed_form.diagnostics(opened)


def _write_bundles(folder: Path) -> list[Path]:
    arrays = {"a/kernel": np.ones((2, 3), np.float32), "a/bias": np.zeros(0, np.float32)}
    forms = {"plain": False, "numbered": True}
    return [write_bundle(folder / name, arrays, objects=("b",), numbered=form) for name, form in forms.items()]


def _bundle_seeds(folder: Path) -> list[bytes]:
    return [Path(f"{prefix}.index").read_bytes() for prefix in _write_bundles(folder)]


def _mutate_bundle(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Behind the checksum of the first block, which holds the entries, too; the other blocks stay in their places."""
    size = next((n for n in range(len(data)) if data[n + 1 : n + 5] == _sealed(data[: n + 1])), 0)
    if size == 0 or rng.randrange(4) == 0:
        return mutated(data, others, rng)
    block = mutated(data[:size], others, rng)[:size].ljust(size, b"\0") + data[size : size + 1]
    return block + _sealed(block) + data[size + 5 :]


def _sealed(block: bytes) -> bytes:
    return struct.pack("<I", masked_crc(block))


def _read_bundle(data: bytes, folder: Path) -> object:
    """An index beside the good data of the seed that it most likely came from."""
    plain, numbered = _write_bundles(folder)
    prefix = numbered if b"_CHECKPOINTABLE" in data else plain
    Path(f"{prefix}.index").write_bytes(data)
    return dict(TensorBundle(prefix))


_CONFIG = b"""model_path: "x"
image_scales: .25
image_scales: 1.4142
is_r: true
delf_local_config {
  use_pca: true
  max_feature_num: 1000
  score_threshold: 100.0
  pca_parameters { mean_path: "m.datum" pca_dim: 40 use_whitening: true }
}
"""


def _archive_seeds(folder: Path) -> list[bytes]:
    seeds = []
    for form in ("w:", "w:gz", "w:xz"):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode=form) as archive:
            for name, kind in (("a/x", tarfile.REGTYPE), ("a/l", tarfile.SYMTYPE), ("a/h", tarfile.LNKTYPE)):
                entry = tarfile.TarInfo(name)
                entry.type, entry.size = kind, 3 if kind == tarfile.REGTYPE else 0
                entry.linkname = {"a/l": "x", "a/h": "a/x"}.get(name, "")
                archive.addfile(entry, io.BytesIO(b"abc"))
        seeds.append(out.getvalue())
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("a/x.h5", b"abc")
        wheel.writestr("../b", b"abc")
    return [*seeds, out.getvalue()]


def _mutate_archive(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Of plain tar files the headers, with their checksums made right again."""
    if len(data) < 1024 or data[257:262] != b"ustar" or rng.randrange(3) == 0:
        return mutated(data, others, rng)
    changed = bytearray(data)
    begin = 512 * rng.randrange(4)
    header = bytearray(mutated(data[begin : begin + 512], [b"../../x", b"/etc/x"], rng)[:512].ljust(512, b"\0"))
    if rng.randrange(2):
        name = rng.choice((b"../outside", b"/tmp/../outside", b"a/../../outside", b"a/l/../../../outside"))
        header[:100] = name.ljust(100, b"\0")
    header[156] = rng.choice(b"0123456LKxgS\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    changed[begin : begin + 512] = header
    return bytes(changed)


def _read_archive(data: bytes, folder: Path) -> object:
    path, around = folder / ("file.whl" if data[:2] == b"PK" else "file.tar"), folder / "around"
    path.write_bytes(data)
    around.mkdir(exist_ok=True)
    tempfile.tempdir = str(around)
    try:
        with unpacked(path) as place:
            return sorted(place.rglob("*")) if place.is_dir() else None
    finally:
        tempfile.tempdir = None
        assert os.listdir(around) == []


def _h5_seeds(folder: Path) -> list[bytes]:
    import h5py

    with h5py.File(folder / "seed.h5", "w") as file:
        file["conv1/kernel"] = np.ones((1, 1, 3, 2), np.float32)
        file["conv1/bias"] = np.zeros(2, np.float32)
    return [(folder / "seed.h5").read_bytes()]


MODEL_READERS: dict[str, Reader] = {
    "head": Reader(_head_seeds, of_file(".safetensors", _read_model), _mutate_model),
    "backbone": Reader(_backbone_seeds, of_file(".safetensors", _read_backbone), _mutate_model),
    "codebook": Reader(_codebook_seeds, of_file(".safetensors", Codebook.open), _mutate_model),
    "statistics": Reader(_statistics_seeds, of_file(".safetensors", _read_statistics), _mutate_model),
    "torch": Reader(_torch_seeds, of_file(".pth", read_torch_file), _mutate_torch),
    "vgg": Reader(_vgg_seeds, of_file(".ckpt", import_vgg)),
    "onnx": Reader(_onnx_seeds, of_file(".onnx", lambda path: read_onnx(str(path)))),
    "keras": Reader(_keras_seeds, _read_keras, plain_json),
    "bundle": Reader(_bundle_seeds, _read_bundle, _mutate_bundle),
    "config": Reader(lambda folder: [_CONFIG], of_file(".pbtxt", read_config)),
    "archive": Reader(_archive_seeds, _read_archive, _mutate_archive),
}
if importlib.util.find_spec("h5py"):
    MODEL_READERS["h5"] = Reader(_h5_seeds, of_file(".h5", read_h5))
