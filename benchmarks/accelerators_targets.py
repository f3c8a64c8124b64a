"""The chips that ``benchmarks.accelerators`` compiles for: what they can do, and how to compile without them."""

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from benchmarks.errors import Unavailable

Name = Literal["v5e", "v6e", "h200"]

# A description of the GPU in the protocol buffer text that XLA's compiler takes instead of a device.
_H200 = Path(__file__).parent / "lists" / "h200.txtpb"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """One kind of chip.

    Attributes:
        platform: name of the platform in JAX's lowering.
        package: its compiler, as a package of the extra [aot].
        device_kinds: what JAX calls the chip where there is one.
        products: FLOP a second of dense matrix products in bfloat16.
        float32_products: the same in float32 with all its digits (``Precision.HIGHEST``).
        high_products: the same in float32 with ``Precision.HIGH``.
        default_products: the same in float32 with the platform's default precision.
        bandwidth: bytes a second of the chip's memory.
        memory: bytes.
        clock: cycles a second that the compiler's ``estimated_cycles`` are counted in; None if it estimates none.
        source: where the figures come from.
    """

    platform: Literal["tpu", "cuda"]
    package: str
    device_kinds: tuple[str, ...]
    products: float
    float32_products: float
    high_products: float
    default_products: float
    bandwidth: float
    memory: float
    clock: float | None
    source: str


# A TPU makes float32 products of six bfloat16 passes, of three, or by default of one; a GPU takes float32 or TF32.
TARGETS: Mapping[Name, Target] = {
    "v5e": Target(
        platform="tpu",
        package="libtpu",
        device_kinds=("TPU v5 lite", "TPU v5e"),
        products=197e12,
        float32_products=197e12 / 6,
        high_products=197e12 / 3,
        default_products=197e12,
        bandwidth=819e9,
        memory=16e9,
        clock=1.5e9,
        source="https://cloud.google.com/tpu/docs/v5e; clock: 197 TFLOP/s of four units of 128 x 128",
    ),
    "v6e": Target(
        platform="tpu",
        package="libtpu",
        device_kinds=("TPU v6 lite", "TPU v6e"),
        products=918e12,
        float32_products=918e12 / 6,
        high_products=918e12 / 3,
        default_products=918e12,
        bandwidth=1640e9,
        memory=32e9,
        clock=1.75e9,
        source="https://cloud.google.com/tpu/docs/v6e; clock: copies are estimated at 80 % of the bandwidth, as on v5e",
    ),
    "h200": Target(
        platform="cuda",
        package="jax-cuda13-plugin",
        device_kinds=("NVIDIA H200",),
        products=989e12,
        float32_products=67e12,
        high_products=494e12,
        default_products=494e12,
        bandwidth=4800e9,
        memory=141e9,
        clock=None,
        source="https://www.nvidia.com/en-us/data-center/h200 (dense, half of the figures with sparsity)",
    ),
}

# Variables that a process needs before it imports JAX, if it is to compile without a chip.
ENVIRONMENT = {
    # The processor holds the weights; nothing looks for a chip or for the cloud's server of metadata.
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def require_compiler(name: Name) -> None:
    """Raises Unavailable if the compiler of a target is not installed."""
    package = TARGETS[name].package
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise Unavailable(f"{package} is not installed; pip install delf-jax[aot]") from None


def absent_devices(name: Name) -> list[Any]:
    """Devices to compile for that are not there: a host of four TPUs, or one GPU."""
    from jax.experimental import topologies

    if TARGETS[name].platform == "tpu":
        topology = topologies.get_topology_desc(topology_name=f"{name}:2x2", platform="tpu")
    else:
        topology = topologies.get_topology_desc(
            platform="cuda", topology_name="", target_config=_H200.read_text(), topology="1x1x1"
        )
    return list(topology.devices)
