"""Options for XLA's compiler on each platform."""

import functools

import jax

# By default XLA computes convolutions and matrix products with YNNPACK, which used 1.5 of two cores: conv4 of a photo
# of 480x640 pixels took 347 ms. Without it, Eigen computes them and took 262 ms (jaxlib 0.10.2; benchmarks/NOTES.md).
# The schedule with the least memory was 1 to 3 % faster than the one for many threads.
_CPU = {
    "xla_cpu_experimental_ynn_fusion_type": "",
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}


@functools.cache
def compiler_options(platform: str) -> dict[str, str] | None:
    """Options for ``jax.jit`` on ``cpu``, ``gpu`` or ``tpu`` that this jaxlib knows; None if there are none."""
    if platform != "cpu":
        return None
    return {name: value for name, value in _CPU.items() if _is_known({name: value})} or None


def _is_known(options: dict[str, str]) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except Exception:  # a type that only the runtime knows
        return False
    return True
