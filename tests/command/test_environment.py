"""What a process of the command sets up: pages of memory."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from delf_jax.command import environment


class Restarted(Exception):
    """In place of a process that begins anew."""


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """Arguments of each start over; the kernel gives large pages to who asks."""
    found: list[Any] = []

    def execve(path: str, args: list[str], env: dict[str, str]) -> None:
        found.append((path, args, env))
        raise Restarted

    pages = tmp_path / "enabled"
    pages.write_text("always [madvise] never\n")
    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(environment, "_LARGE_PAGES", pages)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    return found


def test_a_process_starts_over_with_large_pages(starts: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "dev", "-m", "delf_jax", "extract"])
    with pytest.raises(Restarted):
        environment.use_large_pages()
    ((path, args, env),) = starts
    assert path == sys.executable
    assert args == [sys.executable, "-X", "dev", "-m", "delf_jax", "extract"]
    assert env == dict(os.environ) | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def test_it_does_not_where_that_would_change_nothing(
    starts: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for mode in ("[always] madvise never", "always madvise [never]"):
        (tmp_path / "enabled").write_text(mode)
        environment.use_large_pages()
    (tmp_path / "enabled").unlink()  # not Linux
    environment.use_large_pages()
    assert not starts


def test_the_users_own_tunables_stay(starts: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("glibc.malloc.hugetlb=0", ""):
        monkeypatch.setenv("GLIBC_TUNABLES", value)
        environment.use_large_pages()
    assert not starts


def test_a_process_that_cannot_start_over_goes_on(starts: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str, args: list[str], env: dict[str, str]) -> None:
        raise PermissionError(path)

    monkeypatch.setattr(os, "execve", refused)
    environment.use_large_pages()


def test_arguments_survive_a_real_start_over(tmp_path: Path) -> None:
    pages = tmp_path / "enabled"
    pages.write_text("always [madvise] never\n")
    code = f"""
import os, pathlib, sys
print("begin", flush=True)
from delf_jax.command import environment
environment._LARGE_PAGES = pathlib.Path({str(pages)!r})
environment.use_large_pages()
print(os.environ["GLIBC_TUNABLES"], sys.argv[1:])
"""
    env = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-c", code, "a b", "--c=ü"], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["begin", "begin", "glibc.malloc.hugetlb=1 ['a b', '--c=ü']"]
    assert not done.stderr
