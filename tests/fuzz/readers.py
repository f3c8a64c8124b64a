"""Every reader of files that come from elsewhere: small good files to begin with, and how a file is read."""

import dataclasses
import hashlib
import io
import json
import pickle
import random
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save as save_safetensors

from delf_jax import manifest, model_file, parts
from delf_jax.command import labels
from delf_jax.command.findings import Findings
from delf_jax.datum import decode_datum, encode_datum
from delf_jax.features import LocalFeatures
from delf_jax.folder import Folder
from delf_jax.head import Head
from delf_jax.images import load_photo
from delf_jax.interchange import official
from delf_jax.loading import read_backbone
from delf_jax.manifest import Manifest, Part
from delf_jax.models.import_keras import import_keras
from delf_jax.models.import_vgg import import_vgg
from delf_jax.models.onnx_file import read_onnx
from delf_jax.models.torch_file import read_torch_file
from delf_jax.parts import StoredPhoto
from delf_jax.run_report import RunReport
from delf_jax.settings import ExtractionSettings
from delf_jax.store import FeatureStore
from delf_jax.training import landmark_lists
from localization import predictor
from retrieval import manifest as index_manifest
from retrieval.columns import PhotoColumns
from tests.fuzz.mutate import mutated, plain_json, sealed
from tests.tiny_model import write_tiny_model

Mutate = Callable[[bytes, Sequence[bytes], random.Random], bytes]


@dataclasses.dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
        seeds: good files, made in a folder that is empty.
        read: reads a file's bytes; may use the folder. Raises a DelfError for what is no such file.
        mutate: makes a hostile variant of a good file.
    """

    seeds: Callable[[Path], list[bytes]]
    read: Callable[[bytes, Path], object]
    mutate: Mutate = mutated


def features(count: int = 3, dimension: int = 4, seed: int = 0) -> LocalFeatures:
    """Random features."""
    random = np.random.default_rng(seed)
    descriptors = random.standard_normal((count, dimension)).astype(np.float32)
    descriptors /= np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-9)
    scores = np.sort(random.uniform(size=count).astype(np.float32))[::-1].copy()
    keypoints = random.uniform(0, 99, (count, 2)).astype(np.float32)
    return LocalFeatures(keypoints, np.ones(count, np.float32), scores, descriptors, image_size=(100, 120))


def _photo_seeds(folder: Path) -> list[bytes]:
    random = np.random.default_rng(0)
    colour = Image.fromarray(random.integers(0, 256, (24, 20, 3), dtype=np.uint8))
    forms = {
        "JPEG": ("RGB", "L", "CMYK"),
        "PNG": ("RGB", "RGBA", "P", "1", "LA", "I;16"),
        "WEBP": ("RGB", "RGBA"),
        "GIF": ("P",),
        "BMP": ("RGB", "P"),
        "TIFF": ("RGB", "L", "RGBA", "I;16", "CMYK"),
        "PPM": ("RGB", "L", "1"),
        "JPEG2000": ("RGB", "L"),
        "AVIF": ("RGB",),
    }
    seeds = []
    for form, modes in forms.items():
        for mode in modes:
            out = io.BytesIO()
            (colour.convert("L").convert(mode) if mode == "I;16" else colour.convert(mode)).save(out, form)
            seeds.append(out.getvalue())
    for options in (
        {"format": "TIFF", "compression": "tiff_lzw"},
        {"format": "TIFF", "compression": "tiff_deflate"},
        {"format": "JPEG", "progressive": True},
        {"format": "GIF", "save_all": True, "append_images": [colour]},
        {"format": "WEBP", "lossless": True},
        {"format": "PNG", "interlace": 1},
    ):
        out = io.BytesIO()
        exif = Image.Exif()
        exif[274] = 6
        colour.save(out, **options, **({} if options["format"] in ("GIF",) else {"exif": exif}))
        seeds.append(out.getvalue())
    return seeds


def _manifest(data: bytes) -> Manifest:
    digest = hashlib.sha256(data).hexdigest()
    part = Part(manifest.part_name(0, digest), 2, len(data), digest, frozenset({1}))
    return Manifest(ExtractionSettings(), "f" * 64, 4, parts=(part,), next_part=1)


def _part_seeds(folder: Path) -> list[bytes]:
    photos = [StoredPhoto(f"/{n}.jpg", n, n, f"{n:064x}", features(n)) for n in range(3)]
    return [parts.encode(photos[:n], dimension=4, fingerprint="f" * 64) for n in (1, 3)]


def _read_part(data: bytes, folder: Path) -> object:
    described = _manifest(data)
    (folder / "parts").mkdir(exist_ok=True)
    (folder / "parts" / described.parts[0].name).write_bytes(data)
    try:
        store = FeatureStore(Folder(folder), described)
        store.check()
        return list(store)
    finally:
        (folder / "parts" / described.parts[0].name).unlink()


def _read_store(data: bytes, folder: Path) -> object:
    (folder / "manifest.json").write_bytes(data)
    store = FeatureStore.open(folder)
    store.check()
    return len(store)


def _store_seeds(folder: Path) -> list[bytes]:
    return [_manifest(b"x").to_bytes(), dataclasses.replace(_manifest(b"y"), head="0" * 64).to_bytes()]


def _run_seeds(folder: Path) -> list[bytes]:
    counts = (
        "running",
        None,
        1.5,
        2.0,
        "host",
        7,
        ("cpu",),
        1,
        2,
        3,
        {"is empty": 3},
        10,
        20,
        1,
        {"decode": 0.5},
        1,
        2,
        3.0,
    )
    return [RunReport(*counts).to_bytes()]


def _read_failures(data: bytes, folder: Path) -> object:
    (folder / "failures.jsonl").write_bytes(data)
    return FeatureStore(Folder(folder), _manifest(b"x")).failures()


def _columns() -> PhotoColumns:
    return PhotoColumns.gather([("a.jpg", features(3)), ("b.jpg", features(2, seed=1))])


def _index_manifest_seeds(folder: Path) -> list[bytes]:
    _columns().save(folder)
    description = {
        "backend": "exact",
        "photos": 2,
        "features": 5,
        "dimension": 4,
        "fingerprint": None,
        "threshold": -2.0,
        "settings": None,
    }
    index_manifest.write(folder, description)
    return [(folder / "manifest.json").read_bytes()]


def _read_index_manifest(data: bytes, folder: Path) -> object:
    (folder / "manifest.json").write_bytes(data)
    return index_manifest.damage(folder, index_manifest.read(folder))


_COLUMNS = (
    "names.json",
    "image_sizes.npy",
    "offsets.npy",
    "keypoints.npy",
    "scales.npy",
    "scores.npy",
    "descriptors.npy",
)


def _columns_seeds(folder: Path) -> list[bytes]:
    _columns().save(folder)
    return [bytes([number]) + (folder / name).read_bytes() for number, name in enumerate(_COLUMNS)]


def _read_columns(data: bytes, folder: Path) -> object:
    """The first byte says which file the rest is; the others are good."""
    _columns().save(folder)
    (folder / _COLUMNS[data[0] % len(_COLUMNS)] if data else folder / _COLUMNS[0]).write_bytes(data[1:])
    columns = PhotoColumns.open(folder)
    return [features.descriptors.sum() for _, features in columns], columns.photo_of(np.arange(len(columns.scores)))


def _file(suffix: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    def run(data: bytes, folder: Path) -> object:
        path = folder / f"file{suffix}"
        path.write_bytes(data)
        return read(path)

    return run


def _head_seeds(folder: Path) -> list[bytes]:
    return [(write_tiny_model(folder / "tiny") / "head.safetensors").read_bytes()]


def _mutate_model(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Behind the checksum too: the description is changed, or the tensors are, and sealed again."""
    from tests.fuzz.mutate import mutated_json

    if rng.randrange(3) == 0:
        return mutated(data, others, rng)
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    description = json.loads(header.pop("__metadata__")[model_file.METADATA_KEY])
    arrays = {
        name: np.frombuffer(data[8 + size :][slice(*entry["data_offsets"])], np.float32).reshape(entry["shape"])
        for name, entry in header.items()
    }
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
    return read_backbone(path, ExtractionSettings())


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


def _read_labels(data: bytes, folder: Path) -> object:
    (folder / "labels.csv").write_bytes(data)
    return labels.of_photos(str(folder / "labels.csv"), [str(folder / "a.jpg")], [], None)  # type: ignore[arg-type]


def _landmark_seeds(folder: Path) -> list[bytes]:
    return [
        b'id,url,landmark_id\nabc,http://x/y.jpg,7\nabd,"a,b",8\n',
        b"landmark_id,images\n7,abc abd\n8,abe\n",
        b"id,landmark_id,latitude,longitude\nabc,7,47.1,8.5\nabd,8,-90,180\n",
    ]


def _read_landmarks(data: bytes, folder: Path) -> object:
    (folder / "abc.jpg").touch()
    (folder / "list.csv").write_bytes(data)
    rule = "radius:25" if b"latitude" in data else "landmark"
    return landmark_lists.from_csv(folder / "list.csv", folder, positives=rule)


def _predictor_seeds(folder: Path) -> list[bytes]:
    described = {
        "kind": "predictor",
        "version": 1,
        "files": {"statistics.safetensors": "0" * 64},
        "optimum": None,
        "points": False,
        "map_threshold": 0.5,
        "found_threshold": 1.0,
    }
    return [json.dumps(described).encode()]


def _read_predictor(data: bytes, folder: Path) -> object:
    (folder / "manifest.json").write_bytes(data)
    return predictor.damaged_files(folder, predictor.read_manifest(folder)), predictor.Predictor.open(folder)


def _boxes_seeds(folder: Path) -> list[bytes]:
    edges = np.array([[0, 1, 20, 30], [5, 5, 50, 60]], np.float32)
    boxes = official.Boxes(edges, np.array([0.5, 0.25], np.float32), np.array([1, 2], np.int32))
    return [official.encode_boxes(boxes, image_size=(100, 120))]


def _findings_seeds(folder: Path) -> list[bytes]:
    entry = {"image": "/a.jpg", "file": "a.jpg", "stamp": "x", "boxes": [], "areas": [], "height": 3, "width": 4}
    return [json.dumps(entry).encode()]


def _read_findings(data: bytes, folder: Path) -> object:
    (folder / "localizations.jsonl").write_bytes(data + b"\n" + data)
    Findings(str(folder), recipe="r").finish()
    return None


READERS: dict[str, Reader] = {
    "photo": Reader(_photo_seeds, lambda data, folder: load_photo(data, max_side=64)),
    "store": Reader(_store_seeds, _read_store, sealed("store")),
    "part": Reader(_part_seeds, _read_part),
    "run": Reader(
        _run_seeds, lambda data, folder: RunReport.from_bytes(data, "run.json").to_prometheus(), sealed("run")
    ),
    "failures": Reader(
        lambda folder: [b'{"image": "a", "error": "b"}\n{"image": "c", "error": "d"}\n'], _read_failures
    ),
    "index": Reader(_index_manifest_seeds, _read_index_manifest, sealed(None, spaces=True)),
    "columns": Reader(_columns_seeds, _read_columns),
    "head": Reader(_head_seeds, _file(".safetensors", _read_model), _mutate_model),
    "backbone": Reader(_backbone_seeds, _file(".safetensors", _read_backbone), _mutate_model),
    "torch": Reader(_torch_seeds, _file(".pth", read_torch_file), _mutate_torch),
    "vgg": Reader(_vgg_seeds, _file(".ckpt", import_vgg)),
    "onnx": Reader(_onnx_seeds, _file(".onnx", lambda path: read_onnx(str(path)))),
    "keras": Reader(_keras_seeds, _read_keras, plain_json),
    "labels": Reader(lambda folder: [b'file,label\na.jpg,x\n"b\n.jpg",y\n'], _read_labels),
    "landmarks": Reader(_landmark_seeds, _read_landmarks),
    "delf": Reader(
        lambda folder: [official.encode_delf(features(2)), official.encode_delf(features(0))],
        lambda data, folder: official.decode_delf(data, image_size=(100, 120)),
    ),
    "boxes": Reader(_boxes_seeds, lambda data, folder: official.decode_boxes(data, image_size=(100, 120))),
    "datum": Reader(
        lambda folder: [encode_datum(np.eye(3, dtype=np.float32)), encode_datum(np.arange(4, dtype=np.uint32))],
        lambda data, folder: decode_datum(data),
    ),
    "predictor": Reader(_predictor_seeds, _read_predictor, plain_json),
    "findings": Reader(_findings_seeds, _read_findings, plain_json),
}


def inputs(reader: Reader, folder: Path, *, seed: int) -> Iterator[bytes]:
    """Hostile files without end, the same ones for the same seed; first the good ones."""
    rng = random.Random(seed)
    seeds = reader.seeds(folder)
    yield from seeds
    while True:
        yield reader.mutate(rng.choice(seeds), seeds, rng)
