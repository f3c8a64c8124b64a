"""The head: what turns dense features into scores and compact descriptors, and its file.

The file is safetensors: ``pca_mean`` [C], ``pca_basis`` [d, C], ``pca_variance`` [d], ``foreground`` [C] (the vector
w*), ``attention.*`` and ``autoencoder.*``, each only if the head has it. The description in the file gives the layer,
whether descriptors are whitened, and the ``log10_nfa`` at which a match is accepted.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from delf_jax.errors import ModelError, one_line
from delf_jax.extraction.calibration import Calibration
from delf_jax.extraction.pca import Pca
from delf_jax.files import model_file
from delf_jax.files.changer import only_changer
from delf_jax.settings import ExtractionSettings, Scorer

_PCA = ("pca_mean", "pca_basis", "pca_variance")
_ATTENTION = ("hidden_kernel", "hidden_bias", "kernel", "bias")
_AUTOENCODER = ("encode_kernel", "encode_bias", "decode_kernel", "decode_bias")


@dataclasses.dataclass(frozen=True, eq=False)
class Head:
    """What is fitted or trained on top of a backbone; compared by identity.

    Attributes:
        pca: projection of descriptors, or None; without it, and without an autoencoder, they keep the C dimensions.
        whiten: whether projections are divided by the square root of their variance.
        foreground: float32 [C], unit vector w* of the ``foreground`` scorer, or None.
        attention: arrays of the ``learned`` scorer (see ``attention.score``), or None.
        autoencoder: arrays that reduce features to descriptors in place of the PCA and expand them again for the
            attention (DELG section 3.3; see ``attention.score``), or None.
        layer: the named map that all of this applies to.
        calibrations: when matches are accepted: for each kind of features for which that was measured on strangers.
        log10_nfa_threshold: when matches are accepted, in heads that have no calibration; its bound is not known.
        released_settings: the fields of ``ExtractionSettings`` that the authors of the attention used, if known; their
            threshold is in the unit of this attention. See ``loading.released_settings``.
        notes: free description that is kept in the file: the data it was fitted on, the command.
    """

    pca: Pca | None = None
    whiten: bool = True
    foreground: Float[np.ndarray, " c"] | None = None
    attention: dict[str, np.ndarray] | None = None
    autoencoder: dict[str, np.ndarray] | None = None
    layer: str = "conv4"
    calibrations: tuple[Calibration, ...] = ()
    log10_nfa_threshold: float | None = None
    released_settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Head":
        """Reads a head file.

        Raises:
            ModelError: the file is missing, damaged, or not a head file.
        """
        description, tensors = model_file.read(Path(path))
        if description.get("kind") != "head":
            raise ModelError(f"{path}: this is a {description.get('kind', 'model')} file, not a head; name a head file")
        _require_fit(os.fspath(path), description, tensors)
        pca = None
        if all(name in tensors for name in _PCA):
            pca = Pca(tensors["pca_mean"], tensors["pca_basis"], tensors["pca_variance"])
        attention = {name: tensors[f"attention.{name}"] for name in _ATTENTION if f"attention.{name}" in tensors}
        autoencoder = {
            name: tensors[f"autoencoder.{name}"] for name in _AUTOENCODER if f"autoencoder.{name}" in tensors
        }
        return cls(
            pca=pca,
            whiten=description["whiten"],
            foreground=tensors.get("foreground"),
            attention=attention or None,
            autoencoder=autoencoder or None,
            layer=description["layer"],
            calibrations=tuple(map(Calibration.from_json, description.get("calibrations", ()))),
            log10_nfa_threshold=description.get("log10_nfa_threshold"),
            released_settings=description.get("released_settings", {}),
            notes=description["notes"],
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the head file, whole or not at all; ModelError if others are changing it."""
        tensors: dict[str, np.ndarray] = {}
        if self.pca is not None:
            tensors |= {
                "pca_mean": self.pca.mean,
                "pca_basis": self.pca.basis,
                "pca_variance": self.pca.variance,
            }
        if self.foreground is not None:
            tensors["foreground"] = self.foreground
        if self.attention is not None:
            tensors |= {f"attention.{name}": np.asarray(value) for name, value in self.attention.items()}
        if self.autoencoder is not None:
            tensors |= {f"autoencoder.{name}": np.asarray(value) for name, value in self.autoencoder.items()}
        description = {
            "kind": "head",
            "whiten": self.whiten,
            "layer": self.layer,
            "log10_nfa_threshold": self.log10_nfa_threshold,
            "notes": self.notes,
        }
        if self.calibrations:
            description["calibrations"] = [each.to_json() for each in self.calibrations]
        if self.released_settings:
            description["released_settings"] = self.released_settings
        with only_changer(path, ModelError):
            model_file.write(Path(path), tensors, description)

    def calibration(self, settings: ExtractionSettings, fingerprint: str | None) -> Calibration | None:
        """That of features of these settings; None if they are not calibrated. See ``Calibration.fits``."""
        return next((each for each in self.calibrations if each.fits(settings, fingerprint)), None)

    def require(self, scorer: Scorer, *, name: str) -> None:
        """Checks that this head has a scorer; ``name`` is that of the model in the error.

        Raises:
            ModelError: it has not; the message lists the scorers that it has.
        """
        if scorer not in self.scorers:
            have = ", ".join(self.scorers)
            raise ModelError(f"{name}: this head has no '{scorer}' scorer; it has: {have}. Choose one with --scorer")

    @property
    def scorers(self) -> tuple[Scorer, ...]:
        """The scorers for which this head has the arrays."""
        found: list[Scorer] = ["norm"]
        if self.foreground is not None:
            found.append("foreground")
        if self.attention is not None:
            found.append("learned")
        return tuple(found)

    @property
    def dimension(self) -> int | None:
        """Length of the descriptors; None if they are the features of the layer."""
        if self.autoencoder is not None:
            return int(self.autoencoder["encode_kernel"].shape[1])
        return len(self.pca.basis) if self.pca else None

    def arrays(self) -> dict[str, Any]:
        """The pytree of arrays for the compiled program; whitening is part of the projection."""
        arrays: dict[str, Any] = {}
        if self.pca is not None:
            arrays["pca_mean"] = self.pca.mean
            arrays["pca_projection"] = self.pca.projection(whiten=self.whiten)
        if self.foreground is not None:
            arrays["foreground"] = self.foreground
        if self.attention is not None:
            arrays["attention"] = self.attention
        if self.autoencoder is not None:
            arrays["autoencoder"] = self.autoencoder
        return arrays


def _require_fit(path: str, description: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Checks that the description is that of a head and that the arrays fit together."""
    threshold = description.get("log10_nfa_threshold")
    required = {"whiten": bool, "layer": str, "notes": dict}
    if not all(isinstance(description.get(name), kind) for name, kind in required.items()) or not (
        threshold is None or type(threshold) in (int, float)
    ):
        raise ModelError(f"{path}: its description is not that of a head; get the file again")
    try:
        for described in description.get("calibrations", ()):
            Calibration.from_json(described)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path}: its calibration is damaged ({one_line(error)}); get the file again") from None
    for prefix, names in {"": _PCA, "attention.": _ATTENTION, "autoencoder.": _AUTOENCODER}.items():
        present = [f"{prefix}{name}" in tensors for name in names]
        if any(present) and not all(present):
            raise ModelError(f"{path}: lacks {prefix}{names[present.index(False)]}; get the file again")
    if "pca_basis" in tensors:
        mean, basis, variance = (tensors[name] for name in _PCA)
        if basis.ndim != 2 or mean.shape != basis.shape[1:] or variance.shape != basis.shape[:1]:
            raise ModelError(f"{path}: its PCA has arrays of different sizes; get the file again")
    if "foreground" in tensors and tensors["foreground"].ndim != 1:
        raise ModelError(f"{path}: its foreground vector is not a vector; get the file again")
    if "autoencoder.encode_kernel" in tensors and tensors["autoencoder.encode_kernel"].ndim != 2:
        raise ModelError(f"{path}: its autoencoder's kernel is not a matrix; get the file again")
