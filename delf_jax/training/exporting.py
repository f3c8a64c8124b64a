"""From a finished run to the files that ``delf_jax.load`` reads."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from delf_jax.extraction.head import Head
from delf_jax.training import networks
from delf_jax.training.loop import Result
from delf_jax.training.steps import Steps


def trained_head(steps: Steps, result: Result, base: Head, *, notes: dict[str, Any]) -> Head:
    """The base head with the trained parts in it.

    An autoencoder replaces the PCA. If the backbone was trained, or the base head belongs to another layer, PCA and
    foreground vector were fitted to other features and are left out. Calibrations are for other features too, and
    so is a threshold for other descriptors.

    Args:
        steps, result: of the run.
        base: the head whose other parts are kept.
        notes: stored in the file under ``trained``.
    """
    settings = steps.settings
    head = dataclasses.replace(base, layer=settings.layer, calibrations=(), notes=base.notes | {"trained": notes})
    if settings.changes_backbone or settings.layer != base.layer:
        head = dataclasses.replace(
            head, pca=None, foreground=None, attention=None, autoencoder=None, log10_nfa_threshold=None
        )
    if not settings.has_attention:
        return head
    state = jax.device_get(result.state)
    attention, autoencoder = networks.export(
        steps.network, state["trained"]["heads"], state["statistics"], unit=float(state["units"][settings.layer])
    )
    head = dataclasses.replace(head, attention=attention, autoencoder=autoencoder)
    if autoencoder is not None:
        head = dataclasses.replace(head, pca=None)
    if autoencoder is not None or base.autoencoder is not None:
        head = dataclasses.replace(head, log10_nfa_threshold=None)
    return head


def save_backbone(steps: Steps, result: Result, path: Path, *, model: str) -> None:
    """Writes the trained backbone; ``model`` names the one it began with."""
    parameters = jax.tree.map(np.asarray, jax.device_get(result.state["trained"]["backbone"]))
    source = {"trained_from": model, "fingerprint": steps.backbone.fingerprint, "recipe": steps.settings.recipe}
    steps.backbone.save(path, parameters, source=source)
