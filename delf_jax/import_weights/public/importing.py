"""Weights of other projects, in any known format -> a model folder for ``delf_jax.load``."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from delf_jax.errors import ModelError, one_line
from delf_jax.extraction.head import Head
from delf_jax.files import atomic
from delf_jax.files.changer import only_changer
from delf_jax.files.checksum import file_sha256
from delf_jax.import_weights.delf import ImportedDelf, find_checkpoint, import_delf
from delf_jax.import_weights.delf_config import DelfConfig
from delf_jax.import_weights.imported_backbone import ImportedBackbone, pack_backbone
from delf_jax.import_weights.keras import import_keras
from delf_jax.import_weights.public.archives import unpacked
from delf_jax.import_weights.torchvision import import_torchvision, read_tensors
from delf_jax.import_weights.vgg import import_vgg
from delf_jax.import_weights.vit import import_vit
from delf_jax.models.architectures import architecture_of

# The map that local features come from, for a backbone without a head.
_LAYERS = {"resnet": "conv4", "vgg": "conv5", "vit": "relu"}
_CHECKPOINTS = ("*.index", "variables/variables.index", "*/variables/variables.index")
_MOST_COMPRESSION = 1000
_FILES = (".pth", ".pt", ".pth.tar", ".safetensors", ".onnx", ".h5", ".ckpt")


def import_weights(
    source: Path, out: Path, *, config: DelfConfig | None = None, origin: Mapping[str, str] | None = None
) -> ImportedDelf:
    """Makes the model folder ``out`` from ``source``, in full precision; an older folder is replaced.

    Args:
        source: a file, a folder or an archive: a release or checkpoint of the official DELF or DELG code, a Keras
            ResNet (TensorFlow.js or .h5), or a ResNet, VGG or vision transformer in PyTorch's, safetensors' or ONNX's
            files.
        out: the model folder.
        config: settings and PCA dimensions of a DELF release.
        origin: where the weights come from; stored in the folder.

    Raises:
        ModelError: the source is missing, damaged or in an unknown format, or there is something else than a model at
            ``out``, or others are changing it.
    """
    if not source.exists():
        raise ModelError(
            f"{source}: there is no such file or folder; name public weights, a file, a folder or an archive"
        )
    notes = dict(origin or {}) | {"file": source.name}
    with only_changer(out, ModelError), only_changer(out / "head.safetensors", ModelError):
        if not _is_free(out):
            raise ModelError(f"{out}: there is something else than a model; choose another name")
        with unpacked(source) as place:
            imported = _read(place, config, str(source))
        if source.is_file():
            notes["sha256"] = file_sha256(source)
        with atomic.replacing_folder(out) as folder:
            pack_backbone(imported.backbone, folder / "backbone.safetensors", source=notes, kernels=np.float32)
            head = dataclasses.replace(imported.head, notes=imported.head.notes | {"imported_from": notes})
            head.save(folder / "head.safetensors")
    return imported


def _is_free(out: Path) -> bool:
    """Whether there is nothing yet, or a model."""
    if not out.is_dir():
        return not out.exists()
    return (out / "backbone.safetensors").is_file() or all(path.suffix == ".lease" for path in out.iterdir())


def _read(place: Path, config: DelfConfig | None, name: str) -> ImportedDelf:
    """A backbone and its head, from a file or folder; ``name`` is what errors call it."""
    if place.is_dir():
        if (layers := next(iter(sorted(place.rglob("model.json"))), None)) is not None:
            return _headless(import_keras(layers.parent))
        # In archives, the release is a folder.
        for folder in (place, *sorted(inner for inner in place.iterdir() if inner.is_dir())):
            if any(any(folder.glob(pattern)) for pattern in _CHECKPOINTS):
                return import_delf(folder, config=config)
        files = sorted(file for file in place.rglob("*") if file.name.endswith(_FILES))
        if len(files) != 1:
            found = ", ".join(file.name for file in files[:3]) or "nothing of the kind"
            raise ModelError(f"{name}: must hold one file of weights or one checkpoint; it holds {found}")
        place = files[0]
    if place.suffix == ".index":
        return import_delf(find_checkpoint(place), config=config)
    if config is not None:
        raise ModelError(f"{name}: a config belongs to a DELF checkpoint of TensorFlow, and this is not one")
    return _headless(_read_file(place))


def _read_file(path: Path) -> ImportedBackbone:
    if path.suffix == ".onnx":
        return import_vit(path)
    if path.suffix == ".ckpt":
        return import_vgg(path)
    if path.suffix == ".h5":
        return import_keras(read_h5(path))
    names = list(read_tensors(str(path)))
    importers: dict[str, Any] = {
        r"layer1\.0\.conv1\.weight$": import_torchvision,
        r"patch_embed\.proj\.weight$|patch_embeddings\.projection\.weight$": import_vit,
        r"(^|\.)features\.0\.weight$": import_vgg,
    }
    for pattern, importer in importers.items():
        if any(re.search(pattern, name) for name in names):
            imported: ImportedBackbone = importer(path)
            return imported
    known = ", ".join(names[:3])
    raise ModelError(f"{path}: not a ResNet, VGG or vision transformer with known names; it holds {known}, ...")


def read_h5(path: Path) -> dict[str, np.ndarray]:
    """{name: array} of a Keras .h5 file."""
    try:
        import h5py
    except ImportError as error:
        raise ModelError(f"{path}: .h5 files need h5py; install delf-jax[sfm]") from error
    arrays: dict[str, np.ndarray] = {}
    left = _MOST_COMPRESSION * path.stat().st_size if path.is_file() else 0

    def keep(name: str, item: Any) -> None:
        nonlocal left
        if isinstance(item, h5py.Dataset):
            left -= item.nbytes  # a small file can describe an array of any size
            if left < 0:
                raise ValueError(f"{name} is far larger than the file")
            arrays[name] = np.asarray(item)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(keep)
    except Exception as error:
        # A damaged file can raise almost anything; to the user it means the same.
        reason = one_line(error)
        raise ModelError(f"{path}: cannot be read, or not an .h5 file ({reason})") from error
    return arrays


def _headless(backbone: ImportedBackbone) -> ImportedDelf:
    return ImportedDelf(backbone, Head(layer=_LAYERS[architecture_of(backbone.config)]))
