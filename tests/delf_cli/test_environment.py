"""What a process of the command sets up: memory that is kept for the next photo."""

import ctypes
import os
import platform
import subprocess
import sys
import textwrap

import pytest

from delf_cli import environment

_MEGABYTES = 100
# How much of a block is still the process's own when it has been given back, in megabytes.
_GIVEN_BACK = f"""
    import ctypes, os
    from delf_cli import environment
    environment.keep_memory()
    c = ctypes.CDLL(None)
    c.malloc.restype = ctypes.c_void_p
    c.free.argtypes = [ctypes.c_void_p]

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    block = c.malloc(ctypes.c_size_t({_MEGABYTES} << 20))
    ctypes.memset(block, 1, {_MEGABYTES} << 20)
    c.free(block)
    print((resident() - before) >> 20)
"""


def _kept_megabytes(**given: str) -> int:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("GLIBC_TUNABLES", "MALLOC_"))}
    code = textwrap.dedent(_GIVEN_BACK)
    done = subprocess.run([sys.executable, "-c", code], env=env | given, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's malloc that keeps memory")
@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="malloc may be another one")
@pytest.mark.parametrize("given", [{}, {"GLIBC_TUNABLES": ""}, {"MALLOC_ARENA_MAX": "2"}])
def test_memory_is_kept_unless_its_user_has_a_say(given: dict[str, str]) -> None:
    if given:
        assert _kept_megabytes(**given) < _MEGABYTES / 2
    else:
        assert _kept_megabytes() > _MEGABYTES / 2


# A process that holds more than the bound gives back what it does not use.
_BOUNDED = f"""
    import time
    from delf_cli import environment
    environment._MOST_RESIDENT = {_MEGABYTES} << 19
    environment._GROWTH = 1 << 20
    environment._SECONDS_BETWEEN_LOOKS = 0.01
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's malloc that keeps memory")
@pytest.mark.skipif("LD_PRELOAD" in os.environ, reason="malloc may be another one")
def test_memory_is_kept_up_to_a_bound() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("GLIBC_TUNABLES", "MALLOC_"))}
    wait = """
    for _ in range(1000):
        if resident() - before < 10 << 20:
            break
        time.sleep(0.01)
    print((resident() - before) >> 20)
    """
    code = textwrap.dedent(_BOUNDED) + textwrap.dedent(_GIVEN_BACK) + textwrap.dedent(wait)
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < 10


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("GLIBC_TUNABLES", "MALLOC_")):
            monkeypatch.delenv(name)
    asked: list[object] = []

    class NoMallopt:
        def __init__(self, name: object) -> None:
            asked.append(name)

    monkeypatch.setattr(ctypes, "CDLL", NoMallopt)
    monkeypatch.setattr(sys, "platform", "linux")
    environment.keep_memory()
    monkeypatch.setattr(sys, "platform", "darwin")
    environment.keep_memory()
    assert asked == [None]
