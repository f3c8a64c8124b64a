"""One changer at a time, and readers that see one state whatever is changed meanwhile."""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from delf_jax.errors import DelfError, ModelError
from delf_jax.extraction.head import Head
from delf_jax.files import atomic
from delf_jax.files.changer import only_changer, undisturbed
from delf_jax.import_weights.public.importing import import_weights
from tests.elsewhere import errors_elsewhere


@pytest.mark.parametrize("name", ["index", "there/is/no/such/folder/yet", "n" * 255])
def test_one_changer_at_a_time(name: str, tmp_path: Path) -> None:
    def change() -> None:
        with only_changer(tmp_path / name, ModelError), only_changer(tmp_path / name, ModelError):
            pass

    with only_changer(tmp_path / name, ModelError):
        change()
        (refused,) = errors_elsewhere(change)
    assert isinstance(refused, ModelError)
    assert str(refused).startswith(f"{tmp_path / name}: another writer is at work in it (process {os.getpid()} on ")
    assert errors_elsewhere(change) == []
    assert not [*tmp_path.rglob("*.lease")]


def test_two_are_never_in_it_while_leases_come_and_go(tmp_path: Path) -> None:
    inside, most = [], []

    def change() -> None:
        mine = 0
        while mine < 10:
            try:
                with only_changer(tmp_path / "index", DelfError):
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.0005)
                    inside.pop()
                    mine += 1
            except DelfError:
                time.sleep(0.0005)

    threads = [threading.Thread(target=change) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 40
    assert max(most) == 1
    assert os.listdir(tmp_path) == []


def test_what_a_dead_changer_left_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".index.lease").mkdir()
    (tmp_path / ".index.lease" / ".lease.lock").touch()
    with only_changer(tmp_path / "index", DelfError):
        assert (tmp_path / ".index.lease" / "lease.json").exists()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_reader_reads_again_what_was_replaced_meanwhile(
    exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchanges:
        monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    folder = tmp_path / "index"

    def save(state: str) -> None:
        with atomic.replacing_folder(folder) as aside:
            for name in ("a", "b"):
                (aside / name).write_text(state)

    def read(meanwhile: Callable[[], None]) -> tuple[str, str]:
        a = (folder / "a").read_text()
        meanwhile()
        return a, (folder / "b").read_text()

    save("first")
    changes = iter([lambda: save("second"), lambda: save("third")])
    assert undisturbed(folder / "a", lambda: read(next(changes, lambda: None))) == ("third", "third")

    # Where two folders cannot change places, there is none for a moment.
    folder.rename(tmp_path / "older")
    timer = threading.Timer(0.02, (tmp_path / "older").rename, [folder])
    timer.start()
    assert undisturbed(folder / "a", lambda: read(lambda: None)) == ("third", "third")
    timer.join()
    (folder / "b").unlink()
    with pytest.raises(FileNotFoundError):
        undisturbed(folder / "a", lambda: read(lambda: None))


def test_heads_and_folders_of_weights_have_one_changer(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (tmp_path / "weights.h5").touch()
    for held, change in (
        (model / "head.safetensors", lambda: Head().save(model / "head.safetensors")),
        (model / "head.safetensors", lambda: import_weights(tmp_path / "weights.h5", model)),
        (model, lambda: import_weights(tmp_path / "weights.h5", model)),
    ):
        with only_changer(held, ModelError):
            (refused,) = errors_elsewhere(change)
        assert "another writer is at work" in str(refused)
    assert os.listdir(model) == []


def test_who_lost_the_lease_leaves_that_of_its_successor(tmp_path: Path) -> None:
    lease = tmp_path / ".index.lease"
    with only_changer(tmp_path / "index", DelfError):
        stolen = json.loads((lease / "lease.json").read_text())
        (lease / "lease.json").write_text(json.dumps(stolen | {"owner": "another"}))
    assert json.loads((lease / "lease.json").read_text())["owner"] == "another"


def test_the_lease_lies_inside_where_only_the_folder_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "index").mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    with only_changer(tmp_path / "index", DelfError):
        assert os.listdir(tmp_path) == ["index"]
        assert os.listdir(tmp_path / "index") == [".index.lease"]
    assert os.listdir(tmp_path / "index") == []
