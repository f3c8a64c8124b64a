"""Options for XLA's compiler on each platform, and what a program is compiled for."""

import contextlib
import contextvars
import functools
from collections.abc import Iterator

import jax

# By default XLA computes convolutions and matrix products with YNNPACK, which used 1.5 of two cores: conv4 of a photo
# of 480x640 pixels took 347 ms. Without it, Eigen computes them and took 262 ms (jaxlib 0.10.2; benchmarks/NOTES.md).
# The schedule with the least memory was 1 to 3 % faster than the one for many threads.
_CPU = {
    "xla_cpu_experimental_ynn_fusion_type": "",
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}

_purpose = contextvars.ContextVar("purpose", default="")


def purpose() -> str:
    """What the programs that this thread compiles now are for, in words; empty if nobody has said it."""
    return _purpose.get()


@contextlib.contextmanager
def compiling_for(words: str) -> Iterator[None]:
    """Sets ``purpose`` while the block runs."""
    token = _purpose.set(words)
    try:
        yield
    finally:
        _purpose.reset(token)


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
