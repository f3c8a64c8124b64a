"""The backbone of a training run: read from a model file, run on training batches, written back as a model file."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from delf_jax.extraction.pyramid import resize
from delf_jax.files import model_file
from delf_jax.import_weights.imported_backbone import ImportedBackbone, pack_backbone
from delf_jax.loading import model_paths, read_backbone
from delf_jax.models.backbone import BackboneConfig, feature_maps, normalised
from delf_jax.models.layers import split_units, valid_cells
from delf_jax.models.vit import VitConfig
from delf_jax.settings import Precision
from delf_jax.training.settings import TrainingError


class Backbone(NamedTuple):
    """A network with its first parameters; batch norm is folded in, so its statistics stay those of the file.

    Attributes:
        config: the network and its normalisation.
        parameters: folded, nested float32 arrays.
        fingerprint: of the model file.
    """

    config: BackboneConfig
    parameters: dict[str, Any]
    fingerprint: str

    @classmethod
    def open(cls, model: str) -> "Backbone":
        """Reads a packaged model, a model folder or a backbone file; ModelError if that fails."""
        path, _ = model_paths(model)
        return cls(*read_backbone(path), model_file.fingerprint(path))

    @property
    def map_names(self) -> tuple[str, ...]:
        """The named maps, the deepest one last."""
        return self.config.map_names

    def channels(self, name: str) -> int:
        """Channels of the map ``name``; TrainingError if the network has no such map."""
        if name not in self.map_names:
            raise TrainingError(f"{name}: this backbone has no such map; its maps: {', '.join(self.map_names)}")
        return self.config.channels(name)

    def maps(
        self,
        parameters: Mapping[str, Any],
        images: Num[Array, "b H W 3"],
        valid_hw: Int[Array, "b 2"],
        *,
        last: str,
        precision: Precision,
        gamma: Float[Array, ""] | None = None,
        canvas: int | None = None,
    ) -> tuple[dict[str, Float[Array, "b _ _ _"]], Int[Array, "b 2"]]:
        """The named maps of a batch whose photos are first reduced by ``gamma``.

        Args:
            parameters: as in ``self.parameters``.
            images: RGB in 0-255, photos in the top-left corners.
            valid_hw: (height, width) of each photo.
            last: deepest map wanted.
            precision: compute type.
            gamma: factor of both sides, one for the whole batch; None leaves the size.
            canvas: side of a canvas that holds the reduced photos; with ``gamma`` only.

        Returns:
            The maps, and the reduced photos' sizes.
        """
        pixels = normalised(images, valid_hw, self.config)
        if gamma is not None and canvas is not None:
            reduced_hw = jnp.maximum(jnp.round(valid_hw * gamma), jnp.minimum(valid_hw, 1)).astype(jnp.int32)
            pixels, valid_hw = resize(pixels, valid_hw, reduced_hw, (canvas, canvas)), reduced_hw
        maps = feature_maps(parameters, pixels, valid_hw, config=self.config, last=last, precision=precision)
        return maps, valid_hw

    def cells(
        self, dense: Float[Array, "b h w c"], valid_hw: Int[Array, "b 2"], name: str
    ) -> tuple[Float[Array, "b n c"], Array]:
        """A map as a list of cells, and which of them are in the photo."""
        batch, height, width, channels = dense.shape
        size = self.config.map_size(valid_hw, name)
        return dense.reshape(batch, -1, channels), valid_cells(size, height, width).reshape(batch, -1)

    def require_trainable(self) -> None:
        """Raises TrainingError if only heads can be trained on this backbone."""
        if isinstance(self.config.network, VitConfig):
            raise TrainingError("vision transformers cannot be trained; train a head on it with the recipe 'attention'")

    def save(self, path: str | os.PathLike[str], parameters: Mapping[str, Any], *, source: Mapping[str, str]) -> None:
        """Writes a model file with these parameters in place of the first ones; kernels are rounded to float16."""
        tensors: dict[str, np.ndarray] = {}

        def walk(node: Mapping[str, Any], path: str) -> None:
            for name, child in node.items():
                if isinstance(child, Mapping):
                    walk(child, f"{path}{name}.")
                else:
                    tensors[f"{path}{name}"] = np.asarray(child, np.float32)

        walk(split_units(parameters), "")
        # The batch norm is inside the kernels by now.
        network = type(self.config.network).from_json(self.config.network.to_json() | {"norm_epsilon": None})
        preprocess = {"mean": list(self.config.mean), "std": list(self.config.std)}
        pack_backbone(ImportedBackbone(network, tensors, preprocess), path, source=source)
