"""Several processes of one job give the store that one process gives, also when one is killed on the way."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest

from delf_cli.main import main
from delf_jax.errors import StoreError
from delf_jax.files.folder import Folder
from delf_jax.files.lease import Lease
from delf_jax.job import JobOptions, extraction_job
from delf_jax.job.processes import Heartbeat, Share
from delf_jax.store.reader import FeatureStore
from delf_jax.store.writer import StoreWriter
from localization.predictor import Predictor
from tests.conftest import ROOT
from tests.delf_jax.fake_extractor import FakeExtractor
from tests.delf_jax.job.stores import assert_same_fit, photos_in, rows, save_photos

_CODE = """
import sys
from delf_jax.job import JobOptions, processes, shared_job
from delf_jax.store.writer import StoreWriter
from tests.delf_jax.fake_extractor import FakeExtractor

photos, out, address, count, number, seconds = sys.argv[1:]
StoreWriter.__init__.__kwdefaults__["lease_seconds"] = 8.0  # renewed every 2
processes._SILENT_SECONDS = 6
group = processes.join(address, int(count), int(number))
try:
    extractor = FakeExtractor(seconds=float(seconds))
    options = JobOptions(part_photos=2)
    report = shared_job.run(extractor, [photos, photos + "/missing"], out, options=options, group=group)
    print(report.done, report.skipped, len(report.failed), report.stored)
except Exception as error:
    print(error)
"""


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def run(command: list[str]) -> "subprocess.Popen[str]":
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True)


def start(photos: Path, out: Path, count: int, seconds: list[float]) -> list["subprocess.Popen[str]"]:
    arguments = [str(photos), str(out), free_address(), str(count)]
    command = [sys.executable, "-c", _CODE, *arguments]
    return [run([*command, str(number), str(seconds[number])]) for number in range(count)]


def wait_for_a_part(store: Path, process: "subprocess.Popen[str]") -> None:
    while not photos_in(store):
        time.sleep(0.05)
        assert process.poll() is None


def ends(processes: list["subprocess.Popen[str]"]) -> list[str]:
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [(process.returncode, err) for process, (_, err) in zip(processes, outputs)] == [(0, "")] * len(outputs)
    return [out.strip() for out, _ in outputs]


@pytest.mark.slow
def test_three_processes_fill_the_store_of_one_and_a_killed_one_costs_only_time(tmp_path: Path) -> None:
    photos = save_photos(tmp_path / "photos", map(str, range(30)))
    (photos / "broken.jpg").write_bytes(b"not a photo")
    here = extraction_job.run(
        FakeExtractor(), [photos, photos / "missing"], tmp_path / "here", options=JobOptions(part_photos=2)
    )
    mine = [sum(Share(number, 3).owns(str(path)) for path in photos.glob("*.bmp")) for number in range(3)]
    assert sum(mine) == 30
    out = tmp_path / "there"

    processes = start(photos, out, 3, [0, 0.5, 0])
    wait_for_a_part(out / "processes" / "00001", processes[1])
    processes[1].kill()
    processes[1].communicate()
    message = "process 1 of 3: it died; what is finished is in the store, run the same command again in all processes"
    first, third = ends([processes[0], processes[2]])
    assert first.startswith(message)
    stored = len(FeatureStore.open(out))
    assert third.endswith(str(stored))
    assert mine[0] + mine[2] + 2 <= stored < 30

    ended = [[int(word) for word in line.split()] for line in ends(start(photos, out, 3, [0, 0, 0]))]
    assert [done + skipped for done, skipped, _, _ in ended] == mine
    assert sum(done for done, *_ in ended) == 30 - stored
    assert sum(failed for _, _, failed, _ in ended) == 2
    assert {stored for *_, stored in ended} == {30}
    assert rows(out) == rows(tmp_path / "here")
    assert sorted(FeatureStore.open(out).failures()) == sorted(here.failed)
    assert FeatureStore.open(out).check() == []
    assert list((out / "processes").iterdir()) == []


@pytest.mark.slow
def test_without_process_0_the_others_end_and_all_that_is_finished_is_kept(tmp_path: Path) -> None:
    photos = save_photos(tmp_path / "photos", map(str, range(30)))
    out = tmp_path / "there"
    first, second = start(photos, out, 2, [0.5, 0])
    wait_for_a_part(out, first)
    wait_for_a_part(out / "processes" / "00001", second)
    first.kill()
    first.communicate()
    second.communicate(timeout=120)
    assert second.returncode == -signal.SIGABRT  # by JAX

    report = extraction_job.run(FakeExtractor(), [photos], out)
    assert report.skipped >= 2 + 2
    assert report.done + report.skipped == report.stored == 30
    extraction_job.run(FakeExtractor(), [photos], tmp_path / "here")
    assert rows(out) == rows(tmp_path / "here")
    assert FeatureStore.open(out).check() == []


@pytest.mark.slow
def test_two_processes_fit_what_one_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    for i in range(12):
        np.save(tmp_path / f"{i}.npy", generator.gamma(2, size=(5, 4 + i % 3, 6)).astype(np.float32))
    command = [sys.executable, "-m", "delf_cli", "fit-localizer", *map(str, sorted(tmp_path.iterdir()))]
    command += ["--norm-quantile", "0.9", "--max-points", "100", "--json"]
    together = ["--coordinator", free_address(), "--num-processes", "2", "--out", str(tmp_path / "there")]
    started = [run([*command, *together, "--process-id", str(number)]) for number in range(2)]
    first, second = ends(started)
    assert second == ""
    assert main([*command[3:], "--out", str(tmp_path / "here")]) == 0
    assert json.loads(first)["photos"] == json.loads(capsys.readouterr().out)["photos"] == 12
    assert_same_fit(Predictor.open(tmp_path / "here"), Predictor.open(tmp_path / "there"))
    assert not (tmp_path / "there.processes").exists()


def test_whoever_opens_the_store_takes_in_what_dead_processes_left(tmp_path: Path) -> None:
    photos = save_photos(tmp_path / "photos", map(str, range(6)))
    paths = sorted(photos.iterdir())
    out = tmp_path / "store"
    extraction_job.run(FakeExtractor(), paths[:2], out)
    extraction_job.run(FakeExtractor(), paths[1:5], out / "processes" / "00001", options=JobOptions(part_photos=3))
    with (
        StoreWriter(out / "processes" / "00001", settings=FakeExtractor().settings, fingerprint="fake", dimension=4),
        pytest.raises(StoreError, match="another writer is at work"),
    ):
        extraction_job.run(FakeExtractor(), [photos], out)
    assert extraction_job.run(FakeExtractor(), [photos], out) == (1, 5, [], 6, {})
    extraction_job.run(FakeExtractor(), [photos], tmp_path / "here")
    assert rows(out) == rows(tmp_path / "here")
    assert not list((out / "processes").iterdir())


def test_what_a_process_writes_before_it_ends_is_taken_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = save_photos(tmp_path / "photos", map(str, range(6)))
    paths = sorted(photos.iterdir())
    out = tmp_path / "store"
    process = out / "processes" / "00001"
    extraction_job.run(FakeExtractor(), paths[:1], out)
    extraction_job.run(FakeExtractor(), paths[1:3], process)

    writes = iter([paths[3:5]])

    def waits(folder: Folder, **options: float) -> Lease:
        if folder.address == str(process):
            for late in writes:
                extraction_job.run(FakeExtractor(), late, process)
        return Lease(folder, **options)

    monkeypatch.setattr("delf_jax.store.writer.Lease", waits)
    extraction_job.run(FakeExtractor(), paths[:1], out)
    assert len(FeatureStore.open(out)) == 5


def test_an_object_store_copies_the_parts_itself(tmp_path: Path) -> None:
    photos = save_photos(tmp_path / "photos", map(str, range(6)))
    out = f"memory://{tmp_path.name}/store"
    extraction_job.run(FakeExtractor(), [photos / "0.bmp"], out)
    extraction_job.run(FakeExtractor(), [photos], f"{out}/processes/00002", options=JobOptions(part_photos=3))
    assert extraction_job.run(FakeExtractor(), [photos], out) == (0, 6, [], 6, {})
    assert len(list(FeatureStore.open(out))) == 6
    assert FeatureStore.open(out).check() == []
    assert not fsspec.filesystem("memory").exists(f"{out}/processes/00002")


def test_parts_of_a_process_are_listed_once_when_merging_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = save_photos(tmp_path / "photos", map(str, range(6)))
    out = tmp_path / "store"
    extraction_job.run(FakeExtractor(), [next(photos.iterdir())], out)
    extraction_job.run(FakeExtractor(), [photos], out / "processes" / "00001", options=JobOptions(part_photos=3))

    def killed(self: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("delf_jax.files.folder.Folder.remove_all", killed)
        with pytest.raises(KeyboardInterrupt):
            extraction_job.run(FakeExtractor(), [photos], out)
    assert len(list(FeatureStore.open(out))) == 6
    assert extraction_job.run(FakeExtractor(), [photos], out) == (0, 6, [], 6, {})
    assert FeatureStore.open(out).check() == []


def test_a_heartbeat_is_missed_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, beat = [0.0], ["a"]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    heartbeat = Heartbeat(lambda: beat[0], seconds=10)
    assert heartbeat.is_alive()
    now[0] = 9
    assert heartbeat.is_alive()
    beat[0] = "b"
    assert heartbeat.is_alive()
    now[0] = 18
    assert heartbeat.is_alive()
    now[0] = 19
    assert not heartbeat.is_alive()
