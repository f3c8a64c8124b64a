"""One writer at a time holds a store: others are refused or wait, and the dead are not waited for."""

import contextlib
import errno
import json
import os
import subprocess
import threading
import time
from pathlib import Path

import fsspec
import pytest

from delf_jax.errors import StoreError
from delf_jax.files.folder import Folder
from delf_jax.store.reader import FeatureStore
from tests.delf_jax.store.store_samples import photo, writer


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with writer(tmp_path / "s"), pytest.raises(StoreError, match=r"another writer is at work in it \(process \d+ on"):
        writer(tmp_path / "s")
    with writer("memory://two/writers"), pytest.raises(StoreError, match="another writer is at work"):
        writer("memory://two/writers")
    for path in (tmp_path / "s", "memory://two/writers"):
        writer(path).close()


def test_a_writer_elsewhere_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = writer(tmp_path / "s")
    lease = tmp_path / "s" / "lease.json"
    fresh = json.loads(lease.read_bytes())
    first.close()

    def elsewhere(**changes: object) -> None:
        lease.write_text(json.dumps(fresh | {"computer": "another", "host": "another", "time": time.time()} | changes))

    elsewhere()
    writer(tmp_path / "s", lease_seconds=0.2).close()  # nobody renews it
    assert "waiting to see whether another writer is alive" in caplog.text
    for then, words in ((elsewhere, "another writer is at work"), (lease.unlink, None)):
        elsewhere()
        timer = threading.Timer(0.2, then)
        timer.start()
        with pytest.raises(StoreError, match=words) if words else contextlib.nullcontext():
            writer(tmp_path / "s", lease_seconds=5.0).close()
        timer.join()

    elsewhere(time=time.time() - 1.9)  # its clock is behind
    timer = threading.Timer(0.4, lambda: elsewhere(time=time.time() - 1.9))
    timer.start()
    with pytest.raises(StoreError, match="another writer is at work"):
        writer(tmp_path / "s", lease_seconds=2.0)
    timer.join()

    elsewhere(time=time.time() - 61)
    second = writer(tmp_path / "s")
    second.append([photo("/1.jpg")])
    elsewhere()
    with pytest.raises(StoreError, match="another writer took it over"):
        second.append([photo("/2.jpg")])
    second.close()
    assert lease.exists()
    assert len(FeatureStore.open(tmp_path / "s")) == 1


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="elsewhere, a dead process is waited for")
def test_a_dead_process_of_this_computer_is_not_waited_for() -> None:
    memory = fsspec.filesystem("memory")
    first = writer("memory://dead/s")
    held = json.loads(memory.cat("/dead/s/lease.json"))
    first.close()
    ended = subprocess.Popen(["true"])
    for process in (ended.pid, held["process"]):  # the second time, this process has got the number of one that ended
        memory.pipe("/dead/s/lease.json", json.dumps(held | {"process": process, "started": 1}).encode())
        writer("memory://dead/s").close()
        ended.wait()


@pytest.mark.skipif(os.name == "nt", reason="there are no such locks")
def test_without_locks_a_lease_keeps_others_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("delf_jax.files.lease.fcntl.flock", no_locks)
    with writer(tmp_path / "s"), pytest.raises(StoreError, match="another writer is at work"):
        writer(tmp_path / "s")
    writer(tmp_path / "s").close()


def test_a_lease_that_could_not_be_given_back_grows_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reset(self: Folder, name: str) -> None:
        raise StoreError("reset")

    for place in (f"memory://{tmp_path.name}/s", str(tmp_path / "s")):
        kept = writer(place, lease_seconds=0.2)
        with monkeypatch.context() as patch:
            patch.setattr(Folder, "remove", reset)
            with pytest.raises(StoreError, match="reset"):
                kept.close()
        time.sleep(0.2)
        writer(place, lease_seconds=0.2).close()


def test_a_lease_is_kept_fresh(tmp_path: Path) -> None:
    with writer(tmp_path / "s", lease_seconds=0.04) as store:
        first = json.loads((tmp_path / "s" / "lease.json").read_bytes())["time"]
        for _ in range(200):
            if json.loads((tmp_path / "s" / "lease.json").read_bytes())["time"] > first:
                break
            store._lease._released.wait(0.01)
        else:
            pytest.fail("the lease was never renewed")
