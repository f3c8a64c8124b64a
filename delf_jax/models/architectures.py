"""The list of network architectures, by the name that model files use.

The module of each one defines ``forward``, ``fold``, ``map_names``, ``map_size``, ``channels`` and ``layers_to``.
"""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from delf_jax.errors import ModelError
from delf_jax.models import resnet, vgg, vit
from delf_jax.models.resnet import ResNetConfig
from delf_jax.models.vgg import VggConfig
from delf_jax.models.vit import VitConfig

Config = ResNetConfig | VggConfig | VitConfig

_NETWORKS: dict[str, tuple[ModuleType, Any]] = {
    "resnet": (resnet, ResNetConfig),
    "vgg": (vgg, VggConfig),
    "vit": (vit, VitConfig),
}


def network_of(config: Config) -> ModuleType:
    """The module that computes a network of this configuration."""
    return next(module for module, kind in _NETWORKS.values() if isinstance(config, kind))


def architecture_of(config: Config) -> str:
    """The name of the network in model files."""
    return next(name for name, (_, kind) in _NETWORKS.items() if isinstance(config, kind))


def read_config(description: Mapping[str, Any]) -> Config:
    """The configuration in the description of a model file; without ``architecture`` it is a residual network.

    Raises:
        ModelError: this version of delf-jax does not know the architecture.
    """
    name = description.get("architecture", "resnet")
    if name not in _NETWORKS:
        raise ModelError(f"{name}: unknown architecture; this version knows {', '.join(_NETWORKS)}; update delf-jax")
    return _NETWORKS[name][1].from_json(description["config"])
