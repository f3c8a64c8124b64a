"""What XLA's compiler is asked for on each platform."""

import functools

import jax

# XLA hands convolutions and products to YNNPACK, which keeps two cores busy for 1.5 of two: 347 ms in place of 262 for
# conv4 of a photo of 480x640 pixels. Without it they go to Eigen (jaxlib 0.10.2; benchmarks/NOTES.md).
# The order that keeps least in memory is 1 to 3 % faster than the one made for many threads.
_CPU = {
    "xla_cpu_experimental_ynn_fusion_type": "",
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}


@functools.cache
def compiler_options(platform: str) -> dict[str, str] | None:
    """Options for ``jax.jit`` on ``cpu``, ``gpu`` or ``tpu``, those of them that this jaxlib has; None for none."""
    if platform != "cpu":
        return None
    return {name: value for name, value in _CPU.items() if _is_known({name: value})} or None


def _is_known(options: dict[str, str]) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except Exception:  # its type is the runtime's own
        return False
    return True
