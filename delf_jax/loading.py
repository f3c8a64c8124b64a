"""``load``: an extractor from the name of a model, from a model folder, or from a backbone file."""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax

from delf_jax.cache import models_folder
from delf_jax.errors import ModelError, one_line
from delf_jax.extraction.head import Head
from delf_jax.extractor import Extractor
from delf_jax.files import model_file
from delf_jax.files.changer import undisturbed
from delf_jax.import_weights.public.registry import registry
from delf_jax.models.architectures import Config, network_of, read_config
from delf_jax.models.backbone import BackboneConfig
from delf_jax.models.vit import VitConfig
from delf_jax.settings import ExtractionSettings, Preset

_WEIGHTS = Path(__file__).parent / "weights"

PACKAGED = {"delf-r50": (_WEIGHTS / "resnet50_imagenet.safetensors", _WEIGHTS / "delf-r50.safetensors")}


def load(
    name: str | os.PathLike[str] | None = None,
    *,
    preset: Preset | None = None,
    settings: ExtractionSettings | None = None,
    head: str | os.PathLike[str] | Head | None = None,
    batch_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    **overrides: Any,
) -> Extractor:
    """Loads a model; the packaged one works offline.

    Args:
        name: ``"delf-r50"`` (packaged), the name of public weights that `delf-jax weights` has fetched and imported, a
            folder with ``backbone.safetensors`` and ``head.safetensors``, or a backbone file, whose head lies beside it
            or is given as ``head``.
        preset: ``"fast"``, ``"default"`` or ``"best"``; takes precedence over ``settings``.
        settings: what to extract; ``ExtractionSettings()`` by default. ``name`` takes precedence over its model.
        head: another head (a file or a ``Head``) for the same backbone.
        batch_size: photos that a compiled program takes at once, rounded up to a multiple of the number of devices; by
            default one for each CPU device and eight for each accelerator.
        devices: local devices that share each batch; all by default.
        **overrides: any field of ``ExtractionSettings``, for example ``scorer="norm"`` or ``max_features=500``.

    Raises:
        ValueError: a setting is impossible, or there is no such preset.
        ModelError: the name is unknown, a file is missing or damaged, or the head lacks the scorer.

    >>> load("delf-r51")
    Traceback (most recent call last):
    delf_jax.errors.ModelError: delf-r51: no such model; packaged: delf-r50, or name a folder with backbone.safetensors
    """
    settings = settings or ExtractionSettings()
    if preset is not None:
        settings = settings.with_preset(preset)
    if name is not None:
        overrides = {"model": os.fspath(name)} | overrides
    settings = dataclasses.replace(settings, **overrides)
    backbone_path, head_path = model_paths(settings.model)

    def read() -> Extractor:
        chosen = head if isinstance(head, Head) else Head.open(head or head_path)
        config, params = read_backbone(backbone_path, conv5_stride=settings.conv5_stride)
        fingerprint = _fingerprint(backbone_path, chosen)
        return Extractor(
            config, params, chosen, settings, fingerprint=fingerprint, batch_size=batch_size, devices=devices
        )

    return undisturbed(backbone_path, read)


def released_settings(name: str | os.PathLike[str], settings: ExtractionSettings | None = None) -> ExtractionSettings:
    """The settings that the authors of a model used: scales, threshold, detection.

    Args:
        name: as in ``load``.
        settings: for everything that the authors did not decide; ``ExtractionSettings()`` by default.

    Raises:
        ModelError: as ``load``.
    """
    known = dict(Head.open(model_paths(os.fspath(name))[1]).released_settings)
    if "scales" in known:
        known["scales"] = tuple(known["scales"])
    return dataclasses.replace(settings or ExtractionSettings(), model=os.fspath(name), **known)


def read_backbone(
    path: str | os.PathLike[str], *, conv5_stride: Literal[1, 2] | None = None
) -> tuple[BackboneConfig, dict[str, Any]]:
    """Configuration and parameters of a backbone file, batch norm folded into the convolutions.

    Args:
        path: the file.
        conv5_stride: another stride of conv5 with the same weights; None keeps the one of the file.

    Raises:
        ModelError: the file is missing, damaged or of another kind, or its description does not fit its tensors.
    """
    description, tensors = model_file.read(path)
    if description.get("kind") != "backbone":
        raise ModelError(f"{path}: this is a {description.get('kind', 'model')} file, not a backbone")
    try:
        network = _with_conv5_stride(read_config(description), conv5_stride, path)
        params = network_of(network).fold(tensors, network)
        mean, std = (tuple(float(value) for value in description["preprocess"][name]) for name in ("mean", "std"))
        if not len(mean) == len(std) == 3:
            raise ValueError("preprocess needs three channels")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        reason = one_line(error)
        raise ModelError(f"{path}: does not describe its own tensors ({reason}); get the file again") from None
    return BackboneConfig(network, mean, std), params


def model_paths(name: str) -> tuple[Path, Path]:
    """The backbone file and the head file of a model; ``name`` as in ``load``.

    Raises:
        ModelError: there is no such model.
    """
    if name in PACKAGED:
        return PACKAGED[name]
    folder = Path(name)
    if folder.is_file():
        return folder, folder.with_name("head.safetensors")
    if not (folder / "backbone.safetensors").is_file() and os.path.basename(name) == name:
        folder = models_folder() / name
    if not (folder / "backbone.safetensors").is_file():
        if name in registry():
            steps = f"delf-jax weights fetch {name}`, then `delf-jax weights import {name}"
            raise ModelError(f"{name}: these public weights are not downloaded yet; run `{steps}`")
        packaged = ", ".join(PACKAGED)
        raise ModelError(f"{name}: no such model; packaged: {packaged}, or name a folder with backbone.safetensors")
    return folder / "backbone.safetensors", folder / "head.safetensors"


def _with_conv5_stride(network: Config, stride: Literal[1, 2] | None, path: str | os.PathLike[str]) -> Config:
    if stride is None:
        return network
    if isinstance(network, VitConfig):
        raise ModelError(f"{path}: a vision transformer has no conv5_stride; leave it out")
    return dataclasses.replace(network, conv5_stride=stride)


def _fingerprint(backbone: Path, head: Head) -> str:
    """A digest of all numbers that features depend on: of the backbone file and of the head's arrays."""
    digest = hashlib.sha256(model_file.fingerprint(backbone).encode())
    for path, array in jax.tree_util.tree_leaves_with_path(head.arrays()):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
