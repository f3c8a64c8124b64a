"""Every reader of files that come from elsewhere: small good files to begin with, and how a file is read."""

import dataclasses
import hashlib
import io
import json
import random
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
from PIL import Image

from delf_cli.localization_results import LocalizationResults
from delf_jax.errors import ImageError
from delf_jax.files.envelope import canonical_sha256, encode_envelope
from delf_jax.files.folder import Folder
from delf_jax.interchange import delf_files
from delf_jax.interchange.arrays import read_npz, write_npz
from delf_jax.interchange.datum import decode_datum, encode_datum
from delf_jax.photos import tar_and_parquet
from delf_jax.photos.load import frame_of, load_photo, read_bytes
from delf_jax.photos.names import reads_heif
from delf_jax.settings import ExtractionSettings
from delf_jax.store import manifest, parts
from delf_jax.store.commit_log import VERSION, CommitLog
from delf_jax.store.manifest import FORMAT, Manifest, Part
from delf_jax.store.parts import StoredPhoto
from delf_jax.store.reader import FeatureStore
from delf_jax.store.run_report import RunReport
from localization import Predictor, predictor_files
from localization.foreground.statistics import Statistics
from retrieval.indexing import manifest as index_manifest
from retrieval.indexing.columns import PhotoColumns
from retrieval.indexing.description import IndexDescription
from retrieval.sharding.layout import Layout, ShardEntry
from tests.fuzz.lists import LIST_READERS
from tests.fuzz.model_files import MODEL_READERS
from tests.fuzz.mutate import plain_json, under_checksum
from tests.fuzz.reader import Reader, features, of_file
from tests.odd_files.pictures import png, png_chunk, text_profile, xmp

HEIC = Path(__file__).parent.parent / "odd_files" / "orientation_6.heic"


def _photo_seeds(folder: Path) -> list[bytes]:
    random = np.random.default_rng(0)
    colour = Image.fromarray(random.integers(0, 256, (24, 20, 3), dtype=np.uint8))
    forms = {
        "JPEG": ("RGB", "L", "CMYK"),
        "PNG": ("RGB", "RGBA", "P", "1", "LA", "I;16"),
        "WEBP": ("RGB", "RGBA"),
        "GIF": ("P",),
        "BMP": ("RGB", "P"),
        "TIFF": ("RGB", "L", "RGBA", "I;16", "CMYK", "LA", "YCbCr", "LAB"),
        "PPM": ("RGB", "L", "1"),
        "JPEG2000": ("RGB", "L", "LA", "I;16"),
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
    deep = random.integers(0, 1 << 16, (64, 64, 3), dtype=np.uint16)
    seeds.append(cv2.imencode(".jp2", deep)[1].tobytes())
    for planes, options in ((deep[:8, :8], {}), (np.moveaxis(deep[:8, :8], 2, 0), {"planarconfig": "separate"})):
        out = io.BytesIO()
        tifffile.imwrite(out, planes, photometric="rgb", **options)
        seeds.append(out.getvalue())
    grey = np.asarray(colour.convert("L"))
    about = png_chunk(b"tEXt", b"Raw profile type exif\0" + text_profile(6)) + png_chunk(b"tRNS", b"\0\7")
    seeds.append(png(grey >> 4, 4, 0, before=about, after=png_chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + xmp(3))))
    if reads_heif():
        seeds.append(HEIC.read_bytes())
    return seeds


def _read_photo(data: bytes, folder: Path) -> object:
    photo = load_photo(data, max_side=64)
    assert photo.original_size == frame_of(data).upright_size
    return photo


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


_COMMIT, _SNAPSHOT = "000000000000.json", f"snapshot-{0:012d}-{0:032x}.json"


def _write_commits(folder: Path) -> None:
    shutil.rmtree(folder / "commits", ignore_errors=True)
    log = CommitLog(Folder(folder))
    log._writer = f"{0:032x}"
    log.commit(_manifest(b"x"))


def _store_seeds(folder: Path) -> list[bytes]:
    """Snapshots."""
    _write_commits(folder)
    described = dataclasses.replace(_manifest(b"y"), head="0" * 64)
    return [
        (folder / "commits" / _SNAPSHOT).read_bytes(),
        encode_envelope(FORMAT, VERSION, described.to_json()),
    ]


def _read_store(data: bytes, folder: Path) -> object:
    (folder / "commits").mkdir(exist_ok=True)
    (folder / "commits" / _SNAPSHOT).write_bytes(data)
    store = FeatureStore.open(folder)
    store.check()
    return len(store)


def _commit_seeds(folder: Path) -> list[bytes]:
    _write_commits(folder)
    before = _manifest(b"x")
    after = dataclasses.replace(before, parts=(before.parts[0].without({0}), *before.parts), next_part=2)
    body = {"writer": "", "snapshot": _SNAPSHOT, **after.changes_since(before)}
    return [(folder / "commits" / _COMMIT).read_bytes(), encode_envelope(FORMAT, VERSION, body)]


def _read_commit(data: bytes, folder: Path) -> object:
    (folder / "commits").mkdir(exist_ok=True)
    (folder / "commits" / _COMMIT).write_bytes(data)
    return len(FeatureStore.open(folder))


def _version_0_1_seeds(folder: Path) -> list[bytes]:
    """What ``manifest.json`` and ``recent.json`` were in 0.1; the first byte says which one it is."""
    whole = _manifest(b"x").to_json() | {"version": 2}
    recent = {"continues": canonical_sha256(whole), "next_part": 1, "superseded": [], "parts": [], "version": 2}
    bodies = [whole, recent]
    files = [{"format": FORMAT, "version": 2, "sha256": canonical_sha256(b), "store": b} for b in bodies]
    for name, file in zip(_FILES_0_1, files):
        (folder / name).write_text(json.dumps(file))
    return [bytes([number]) + (folder / name).read_bytes() for number, name in enumerate(_FILES_0_1)]


_FILES_0_1 = ("manifest.json", "recent.json")


def _read_version_0_1(data: bytes, folder: Path) -> object:
    _version_0_1_seeds(folder)
    (folder / _FILES_0_1[data[0] % 2 if data else 0]).write_bytes(data[1:])
    return len(FeatureStore.open(folder))


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
    (folder / "manifest.json").unlink(missing_ok=True)
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
    "domains.npy",
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


def _predictor_seeds(folder: Path) -> list[bytes]:
    """Beside the good files that its manifest lists."""
    maps = np.random.default_rng(0).random((3, 3, 4), np.float32)
    with tempfile.TemporaryDirectory() as aside:
        Predictor(Statistics.of_photo(maps)).save(aside)
        shutil.copytree(aside, folder, dirs_exist_ok=True)
    return [(folder / "manifest.json").read_bytes()]


def _read_predictor(data: bytes, folder: Path) -> object:
    (folder / "manifest.json").write_bytes(data)
    return predictor_files.damaged_files(folder, predictor_files.read_manifest(folder)), Predictor.open(folder)


def _boxes_seeds(folder: Path) -> list[bytes]:
    edges = np.array([[0, 1, 20, 30], [5, 5, 50, 60]], np.float32)
    boxes = delf_files.Boxes(edges, np.array([0.5, 0.25], np.float32), np.array([1, 2], np.int32))
    return [delf_files.encode_boxes(boxes, image_size=(100, 120))]


def _localization_results_seeds(folder: Path) -> list[bytes]:
    entry = {"image": "/a.jpg", "file": "a.jpg", "stamp": "x", "boxes": [], "areas": [], "height": 3, "width": 4}
    return [json.dumps(entry).encode()]


def _read_localization_results(data: bytes, folder: Path) -> object:
    (folder / "localizations.jsonl").write_bytes(data + b"\n" + data)
    LocalizationResults(str(folder), recipe="r").finish()
    return None


def _layout_seeds(folder: Path) -> list[bytes]:
    entry = ShardEntry("00000", 1, 2, 5)
    (folder / entry.folder).mkdir(parents=True, exist_ok=True)
    _index_manifest_seeds(folder / entry.folder)
    np.save(folder / entry.numbers_file, np.arange(2))
    files = (f"{entry.folder}/{index_manifest.NAME}", entry.numbers_file)
    index, numbers = (index_manifest.file_entry(folder / name) for name in files)
    entry = dataclasses.replace(entry, index=index, numbers=numbers)
    description = IndexDescription(settings=ExtractionSettings(), fingerprint=None, threshold=-2.0)
    Layout((entry,), 2, 4, "exact", description, None).write(folder)
    return [(folder / index_manifest.NAME).read_bytes()]


def _read_layout(data: bytes, folder: Path) -> object:
    (folder / index_manifest.NAME).write_bytes(data)
    return Layout.read(folder).damage(folder)


def _tar_seeds(folder: Path) -> list[bytes]:
    seeds = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:", format=form) as archive:
            for name in ("a.jpg", "b" * 90 + "/c.png", "d.txt", "a.jpg"):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mtime = 3, 1.5 if form == tarfile.PAX_FORMAT else 1
                archive.addfile(entry, io.BytesIO(b"abc"))
        used = len(out.getvalue().rstrip(b"\0"))
        seeds.append(out.getvalue()[: (used + 511) // 512 * 512 + 1024])
    return seeds


def _parquet_seeds(folder: Path) -> list[bytes]:
    columns = (
        {"path": ["a.jpg", "b.jpg"], "image": [b"abc", b"d"]},
        {"image": [{"bytes": b"abc", "path": "a"}]},
        {
            "image": [{"bytes": b"abc", "path": "a"}, {"bytes": b"d", "path": "a"}],
            "mask": [b"m", None],
            "id": [1, None],
        },
        {"left": [b"abc"], "right": [b"d"]},
    )
    seeds = []
    for column in columns:
        out = io.BytesIO()
        pq.write_table(pa.table(column), out)
        seeds.append(out.getvalue())
    return seeds


def _read_shard(path: Path) -> object:
    status = path.stat()
    found, errors = [], []
    for column in (None, "left") if path.suffix == ".parquet" else (None,):
        for member in tar_and_parquet.members(
            str(path), size=status.st_size, mtime_ns=status.st_mtime_ns, column=column
        ):
            if isinstance(member, ImageError):
                errors.append(member)
            else:
                found.append(read_bytes(member.address))
    if errors and not found:
        raise errors[0]
    return found


def _npz_seeds(folder: Path) -> list[bytes]:
    write_npz(folder / "seed.npz", features())
    return [(folder / "seed.npz").read_bytes()]


READERS: dict[str, Reader] = {
    "photo": Reader(_photo_seeds, _read_photo),
    "tar": Reader(_tar_seeds, of_file(".tar", _read_shard)),
    "parquet": Reader(_parquet_seeds, of_file(".parquet", _read_shard)),
    "store": Reader(_store_seeds, _read_store, under_checksum),
    "commit": Reader(_commit_seeds, _read_commit, under_checksum),
    "store of 0.1": Reader(_version_0_1_seeds, _read_version_0_1),
    "part": Reader(_part_seeds, _read_part),
    "run": Reader(
        _run_seeds, lambda data, folder: RunReport.from_bytes(data, "run.json").to_prometheus(), under_checksum
    ),
    "failures": Reader(
        lambda folder: [b'{"image": "a", "error": "b"}\n{"image": "c", "error": "d"}\n'], _read_failures
    ),
    "index": Reader(_index_manifest_seeds, _read_index_manifest, under_checksum),
    "index in shards": Reader(_layout_seeds, _read_layout, under_checksum),
    "columns": Reader(_columns_seeds, _read_columns),
    "npz": Reader(_npz_seeds, of_file(".npz", read_npz)),
    "delf": Reader(
        lambda folder: [delf_files.encode_delf(features(2)), delf_files.encode_delf(features(0))],
        lambda data, folder: delf_files.decode_delf(data, image_size=(100, 120)),
    ),
    "boxes": Reader(_boxes_seeds, lambda data, folder: delf_files.decode_boxes(data, image_size=(100, 120))),
    "datum": Reader(
        lambda folder: [encode_datum(np.eye(3, dtype=np.float32)), encode_datum(np.arange(4, dtype=np.uint32))],
        lambda data, folder: decode_datum(data),
    ),
    "predictor": Reader(_predictor_seeds, _read_predictor, under_checksum),
    "localization results": Reader(_localization_results_seeds, _read_localization_results, plain_json),
    **MODEL_READERS,
    **LIST_READERS,
}


def inputs(reader: Reader, folder: Path, *, seed: int) -> Iterator[bytes]:
    """Hostile files without end, the same ones for the same seed; first the good ones."""
    rng = random.Random(seed)
    seeds = reader.seeds(folder)
    yield from seeds
    while True:
        yield reader.mutate(rng.choice(seeds), seeds, rng)
