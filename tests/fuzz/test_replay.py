"""A few hundred hostile files a reader, and what the long runs (``python -m tests.fuzz``) found."""

import io
import itertools
import json
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from delf_cli.localization_results import LocalizationResults
from delf_cli.result_pictures import FileNames
from delf_jax.errors import DelfError, ImageError, ModelError
from delf_jax.import_weights.public.archives import unpacked
from delf_jax.import_weights.public.importing import read_h5
from delf_jax.import_weights.tensor_bundle import TensorBundle
from delf_jax.import_weights.torch_file import read_torch_file
from delf_jax.import_weights.vgg import import_vgg
from delf_jax.models.architectures import read_config
from delf_jax.photos.load import load_photo
from localization.evaluation import true_masks
from tests.conftest import ROOT
from tests.delf_jax.import_weights.bundle_writer import write_bundle
from tests.fuzz.readers import READERS, inputs

SEEDS = Path(__file__).with_name("seeds")
# What reads a whole model, or several files, takes longer.
FEWER = {"backbone": 50, "columns": 100, "localization results": 100}


def judge(name: str, data: bytes, folder: Path) -> None:
    """Reads one file: an answer, or one line that a user can do something with."""
    reason = ""
    try:
        READERS[name].read(data, folder)
    except DelfError as error:
        reason = str(error)
    assert "\n" not in reason


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning", "ignore::SyntaxWarning")
@pytest.mark.parametrize("name", READERS)
def test_hostile_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    for data in itertools.islice(inputs(READERS[name], inside, seed=7), FEWER.get(name, 150)):
        judge(name, data, inside)
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]


@pytest.mark.parametrize("path", sorted(SEEDS.glob("*/*")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_stays_found(path: Path, tmp_path: Path) -> None:
    READERS[path.parent.name].seeds(tmp_path)
    judge(path.parent.name, path.read_bytes(), tmp_path)


@given(st.binary(max_size=200), st.sampled_from(sorted(set(READERS) - {"landmarks"})))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(b"[" * 100_000, "store")
@example(b'{"version": 1, "format": "delf-jax run", "run": ' + b"[" * 100_000, "run")
@example(b"\x80\x04r\xff\xff\xff\x7f.", "vgg")
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes, name: str) -> None:
    READERS[name].seeds(tmp_path) if name in ("index", "index in shards", "columns", "predictor") else None
    judge(name, data, tmp_path)


@given(st.lists(st.text(st.characters(exclude_characters="\0")), max_size=8))
@example(["../../x.jpg", "/etc/passwd", "..", "a/..", "x_2.jpg", "a/x.png", "b/x.png", "s3://bucket/../y.jpg"])
def test_pictures_stay_in_their_folder(photos: list[str]) -> None:
    names = [*map(FileNames().of, photos)]
    assert len(set(names)) == len(photos)
    assert all("/" not in name and name not in ("", ".", "..") for name in names)


def test_a_list_of_localization_results_cannot_name_a_picture_elsewhere(tmp_path: Path) -> None:
    entry = {
        "image": "/a.jpg",
        "file": "../outside.jpg",
        "stamp": "",
        "boxes": [],
        "areas": [],
        "height": 1,
        "width": 1,
    }
    (tmp_path / "localizations.jsonl").write_text(json.dumps(entry) + "\n")
    assert LocalizationResults(str(tmp_path), recipe="r")._lines == {}


def header_only(width: int, height: int) -> dict[str, bytes]:
    """Photos whose headers promise a size, and nothing else."""
    png = (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + _chunk(b"IDAT", b"")
    )
    bmp = (
        b"BM"
        + struct.pack("<IHHI", 60, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    )
    return {"png": png, "bmp": bmp, "ppm": f"P6 {width} {height} 255\n".encode()}


def _chunk(kind: bytes, data: bytes) -> bytes:
    import zlib

    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("kind", ["png", "bmp", "ppm"])
def test_a_size_is_judged_before_memory_is_taken(kind: str) -> None:
    with pytest.raises(ImageError, match="pixels are above the limit"):
        load_photo(header_only(100_000, 100_000)[kind], max_side=64)


MEMO = b"\x80\x02}r\xff\xff\xff\x7f."  # a dict, remembered under the number two billion
BOMBS = """
import resource, sys
from delf_jax.errors import ModelError
from delf_jax.import_weights.{module} import {name}
resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))
try:
    {name}(sys.argv[1])
except ModelError as error:
    print(error)
# Of this process alone: the figure of getrusage begins with its parent's.
print(next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.parametrize(
    ("module", "name", "suffix"), [("vgg", "import_vgg", ".ckpt"), ("torch_file", "read_torch_file", ".pth")]
)
def test_a_pickle_cannot_ask_for_gigabytes(module: str, name: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"bomb{suffix}"
    path.write_bytes(MEMO)
    code = BOMBS.format(module=module, name=name)
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    refusal, mib = done.stdout.splitlines()
    assert "beyond what it holds" in refusal
    assert int(mib) < 1500


def test_a_pickle_of_dicts_without_end_is_refused(tmp_path: Path) -> None:
    bomb: dict[str, object] = {}
    for _ in range(40):
        bomb = {"a": bomb, "b": bomb}  # 2^40 leaves in a few hundred bytes
    (tmp_path / "bomb.ckpt").write_bytes(pickle.dumps(bomb))
    with pytest.raises(ModelError, match="over and over"):
        import_vgg(tmp_path / "bomb.ckpt")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps(bomb, 2))
    (tmp_path / "bomb.pth").write_bytes(out.getvalue())
    with pytest.raises(ModelError, match="without end"):
        read_torch_file(tmp_path / "bomb.pth")


@pytest.mark.parametrize(
    "described",
    [
        {"config": {"layout": "keras_v1", "norm_epsilon": None, "blocks": [3, 4, 10**9, 3]}},
        {"architecture": "vit", "config": {"patch": 14, "grid": 37, "depth": 10**9}},
    ],
)
def test_a_network_of_a_billion_layers_is_not_built(described: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"10000000[01]0"):
        read_config(described)


@pytest.mark.parametrize("suffix", [".whl", ".tar.gz"])
def test_an_archive_that_would_fill_the_disk_is_not_unpacked(suffix: str, tmp_path: Path) -> None:
    zeros = bytes(3 << 20)
    path = tmp_path / f"bomb{suffix}"
    if suffix == ".whl":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
            wheel.writestr("a", zeros)
    else:
        with tarfile.open(path, "w:gz") as archive:
            entry = tarfile.TarInfo("a")
            entry.size = len(zeros)
            archive.addfile(entry, io.BytesIO(zeros))
    with unpacked(path, max_bytes=3 << 20) as folder:
        assert (folder / "a").stat().st_size == 3 << 20
    with pytest.raises(ModelError, match="more than 2 MiB"), unpacked(path, max_bytes=2 << 20):
        pass


@pytest.mark.parametrize(
    "claim", [{"size": 1 << 62}, {"offset": 1 << 69}, {"shape": (1 << 32, (1 << 32) + 1), "size": 4}]
)
def test_a_checkpoint_cannot_ask_for_more_than_its_data_file_holds(claim: dict[str, Any], tmp_path: Path) -> None:
    bundle = TensorBundle(write_bundle(tmp_path / "model", {"a": np.arange(3, dtype=np.float32)}))
    assert bundle["a"].tolist() == [0, 1, 2]
    bundle._entries["a"] = bundle._entries["a"]._replace(**claim)
    with pytest.raises(ModelError, match="ends inside a"):
        bundle["a"]


def test_an_h5_file_cannot_promise_arrays_far_larger_than_itself(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.create_dataset("conv1/kernel", shape=(1 << 40,), chunks=(1 << 10,), dtype="f4")
    with pytest.raises(ModelError, match="far larger than the file"):
        read_h5(tmp_path / "bomb.h5")


def test_a_mask_cannot_promise_more_pixels_than_a_photo_has() -> None:
    with pytest.raises(DelfError, match="100000 x 100000 pixels"):
        true_masks.polygon_mask([[0, 0, 1, 0, 1, 1]], (100_000, 100_000))


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", np.zeros(1 << 24, np.uint8).tobytes())
    with pytest.raises(ModelError, match="compressed"):
        read_torch_file(tmp_path / "bomb.pth")
