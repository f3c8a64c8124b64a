"""A writer that is suspended just before it commits, while another one takes over, overwrites nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from delf_jax.errors import StoreError
from delf_jax.files.folder import Folder
from delf_jax.store.reader import FeatureStore
from delf_jax.store.writer import StoreWriter
from tests.conftest import ROOT
from tests.delf_jax.store.store_samples import photo, writer

_SUSPENDED = """
import os, signal, sys
from delf_jax.errors import StoreError
from delf_jax.files.folder import Folder
from tests.delf_jax.store.store_samples import photo, writer

store = writer(sys.argv[1], lease_seconds=1.0)
create = Folder.create

def suspended(self, name, data):
    os.kill(os.getpid(), signal.SIGSTOP)
    create(self, name, data)

Folder.create = suspended
try:
    store.append([photo("/first.jpg", seed=1)])
except StoreError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no process can be suspended")
def test_a_suspended_process_stops_with_an_error_and_its_successor_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    process = subprocess.Popen(
        [sys.executable, "-c", _SUSPENDED, str(path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        with monkeypatch.context() as patch:  # another computer: it does not see the kernel's lock, nor the process
            patch.setattr("delf_jax.files.lease.fcntl", None)
            patch.setattr("socket.gethostname", lambda: "another")
            with writer(path, lease_seconds=1.0) as successor:
                successor.append([photo("/second.jpg", seed=2)])
    finally:
        process.send_signal(signal.SIGCONT)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert "another writer has committed to it while this one was suspended" in out
    assert_only_the_successor(path)


def test_the_same_between_the_look_at_the_lease_and_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s"
    first = writer(path)
    with pytest.raises(StoreError, match="another writer has committed"):
        append_overtaken(first, path, monkeypatch, appended=1)
    first.close()
    assert_only_the_successor(path)


@pytest.mark.parametrize("appended", [0, 1])
def test_without_conditional_writes_a_replaced_commit_is_noticed_and_done_again(
    appended: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number is looked up, but not written, under one condition: the worst is a part that is computed again."""
    path = f"memory://unconditional/{appended}"
    first = writer(path)
    memory = type(first._folder.filesystem)

    def look_then_write(self: object, name: str, data: bytes, mode: str = "overwrite") -> None:
        if mode == "create":
            if self.exists(name):  # type: ignore[attr-defined]
                raise FileExistsError(name)
            if overtakes:
                overtakes.pop()()
        with self.open(name, "wb") as file:  # type: ignore[attr-defined]
            file.write(data)

    overtakes = [lambda: take_over(first, path, monkeypatch, appended)]
    monkeypatch.setattr(memory, "pipe_file", look_then_write)
    with pytest.raises(StoreError, match="another writer"):
        first.append([photo("/first.jpg", seed=1)])
    found = FeatureStore.open(path)
    assert found.check() == []
    with writer(path) as store:
        for seed, name in enumerate(("/first.jpg", "/second.jpg"), 1):
            if store.known(name) is None:
                store.append([photo(name, seed=seed)])
    assert sorted(row.path for row in FeatureStore.open(path)) == ["/first.jpg", "/second.jpg"]


def take_over(first: StoreWriter, path: str | Path, monkeypatch: pytest.MonkeyPatch, appended: int) -> None:
    """What happens while ``first`` is suspended: its lease goes to a successor, which commits and ends."""
    first._lease._unlock()
    first._folder.remove("lease.json")
    with writer(path) as successor:
        for seed in range(2, 2 + appended):
            successor.append([photo("/second.jpg", seed=seed)])


def append_overtaken(first: StoreWriter, path: str | Path, monkeypatch: pytest.MonkeyPatch, *, appended: int) -> None:
    create = Folder.create
    overtakes = [lambda: take_over(first, path, monkeypatch, appended)]

    def overtaken(self: Folder, name: str, data: bytes) -> None:
        if overtakes:
            overtakes.pop()()
        create(self, name, data)

    monkeypatch.setattr(Folder, "create", overtaken)
    first.append([photo("/first.jpg", seed=1)])


def assert_only_the_successor(path: Path) -> None:
    found = FeatureStore.open(path)
    assert [(row.path, row.size) for row in found] == [("/second.jpg", 1002)]
    assert found.check() == []
    with writer(path) as store:  # what the suspended one left is removed, and its photo is done again
        assert store.known("/first.jpg") is None
        store.append([photo("/first.jpg", seed=1)])
    assert len(os.listdir(path / "parts")) == len(FeatureStore.open(path)) == 2
