"""What a process of the command sets up: memory that programs use again."""

import os
import platform
import subprocess
import sys
import textwrap

import pytest

_SECOND_CALL = """
    import resource
    from delf_jax.command import environment
    environment.start_jax()
    import jax, jax.numpy as jnp, numpy as np

    def faults():
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    @jax.jit
    def program(x):  # with temporary memory of about 100 MB
        y = jnp.cumsum(jnp.broadcast_to(x, (6000, 4000)), axis=0)
        return jnp.cumsum(y[::-1], axis=0).sum()

    program(1.0).block_until_ready()
    before = faults()
    program(2.0).block_until_ready()
    print(faults() - before)
"""


def _faults(**env: str) -> int:
    own = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    code = textwrap.dedent(_SECOND_CALL)
    done = subprocess.run([sys.executable, "-c", code], env=own | env, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's malloc that keeps memory")
def test_a_program_uses_the_memory_of_its_last_call_again() -> None:
    as_its_user_wants = _faults(GLIBC_TUNABLES="")
    assert as_its_user_wants > 10_000
    assert _faults() < as_its_user_wants / 10
