"""On a Ray cluster the job does the same as here, also when workers die under it."""

import functools
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

import localization
from delf_cli.main import main
from delf_jax.errors import ClusterError, ImageError, ModelError
from delf_jax.features import LocalFeatures
from delf_jax.job import JobOptions, extraction_job, ray_session
from delf_jax.job.ray_extractor import RayExtractor
from delf_jax.job.ray_session import Workers
from delf_jax.store.reader import FeatureStore
from localization.fitting import distributed
from localization.fitting.fit import FitSettings, accumulate, fit_with
from tests.conftest import ROOT
from tests.delf_jax.fake_extractor import FakeExtractor
from tests.delf_jax.job.stores import assert_same_fit, rows, save_photos

ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Mortal(FakeExtractor):
    """Dies at a photo named poison, every time, and at one named unlucky, the first time."""

    def stream(
        self, items: Iterable[tuple[str, str]], *, workers: int | None = None
    ) -> Iterator[tuple[str, LocalFeatures | ImageError, str | None]]:
        for result in super().stream(items, workers=workers):
            name = os.path.basename(result[0])
            if name.startswith("poison"):
                os._exit(1)
            met = Path(result[0]).with_suffix(".met")
            if name.startswith("unlucky") and not met.exists():
                met.touch()
                os._exit(1)
            yield result


@pytest.fixture(scope="module")
def worker(ray_workers: Workers) -> Workers:
    """One alone, where the second would add nothing but the time that it takes to start."""
    return ray_workers._replace(number=1)


def spread(load: type[FakeExtractor], workers: Workers) -> RayExtractor:
    local = FakeExtractor()
    return RayExtractor(
        load, workers, settings=local.settings, fingerprint=local.fingerprint, dimension=local.dimension
    )


def test_rows_are_those_of_the_plain_job(ray_workers: Workers, tmp_path: Path) -> None:
    photos = save_photos(tmp_path / "photos", [f"{i} é" for i in range(20)])
    (photos / "broken.jpg").write_bytes(b"not a photo")
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.add(photos, "more")
    names = [photos, tmp_path / "shard.tar"]
    here = extraction_job.run(FakeExtractor(), names, tmp_path / "here")
    there = extraction_job.run(spread(FakeExtractor, ray_workers), names, tmp_path / "there")
    assert there.done == 40
    assert there[:2] == here[:2]
    assert sorted(there.failed) == sorted(here.failed)
    assert rows(tmp_path / "there") == rows(tmp_path / "here")


def test_lost_workers_cost_nothing_and_a_photo_that_kills_them_is_listed(
    ray_workers: Workers, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    photos = save_photos(tmp_path / "photos", [*map(str, range(20)), "poison", "unlucky"])
    report = extraction_job.run(spread(Mortal, ray_workers), [photos], tmp_path / "store")
    assert (report.done, [path for path, _ in report.failed]) == (21, [str(photos / "poison.bmp")])
    assert "every worker that read it died" in report.failed[0][1]
    assert FeatureStore.open(tmp_path / "store").failures() == report.failed
    assert capfd.readouterr() == ("", "")
    # The plain job goes on where this one ended, and then both are one.
    assert extraction_job.run(FakeExtractor(), [photos], tmp_path / "store") == (1, 21, [], 22, {})
    extraction_job.run(FakeExtractor(), [photos], tmp_path / "here")
    assert rows(tmp_path / "store") == rows(tmp_path / "here")


def test_an_interrupted_job_goes_on(worker: Workers, tmp_path: Path) -> None:
    photos = save_photos(tmp_path / "photos", map(str, range(20)))

    def interrupt(progress: extraction_job.Progress) -> None:
        if progress.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extraction_job.run(
            spread(FakeExtractor, worker), [photos], tmp_path / "store", options=JobOptions(progress=interrupt)
        )
    assert len(FeatureStore.open(tmp_path / "store")) == 5
    assert extraction_job.run(spread(FakeExtractor, worker), [photos], tmp_path / "store") == (15, 5, [], 20, {})


def test_merged_sums_are_those_of_a_single_pass(worker: Workers, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for i in range(12):
        np.save(tmp_path / f"{i}.npy", generator.gamma(2, size=(5, 4 + i % 3, 6)).astype(np.float32))
    (tmp_path / "broken.npy").write_bytes(b"not a map")
    paths = sorted(str(path) for path in tmp_path.glob("*.npy"))
    labels = {path: path[-5] for path in paths}
    failed: dict[str, list[str]] = {"here": [], "there": []}
    on_ray = functools.partial(distributed.accumulate_on_ray, load=localization.MapEncoder, workers=worker)
    settings = FitSettings(labels=labels, max_points=100)
    here, there = (
        fit_with(
            way,
            paths,
            settings,
            norm_quantile=0.9,
            encoder=localization.MapEncoder(),
            on_error=lambda error, name=name: failed[name].append(error.source),
        )
        for name, way in (("here", accumulate), ("there", on_ray))
    )
    assert failed["here"] == failed["there"] == [str(tmp_path / "broken.npy")]
    assert_same_fit(here, there)


def fail(error: Exception) -> FakeExtractor:
    raise error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModelError("tiny: no such model"), "^tiny: no such model$"),
        (ImportError("no module named x"), "the workers cannot start .*no module named x.*the same delf-jax"),
    ],
)
def test_workers_that_cannot_start_say_why(worker: Workers, tmp_path: Path, error: Exception, message: str) -> None:
    photos = save_photos(tmp_path / "photos", "ab")
    with pytest.raises(ClusterError, match=message):
        extraction_job.run(spread(functools.partial(fail, error), worker), [photos], tmp_path / "store")


def test_the_command_on_a_cluster_that_runs_already(
    ray_workers: Workers, tmp_path: Path, tiny_model: Path, demo_photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = [demo_photos / f"{name}.jpg" for name in ("graf1", "box", "chelsea")]
    photos.append(tmp_path / "missing.jpg")
    options = ["--model", tiny_model, "--max-side", "240", "--max-features", "100", "--scales", "1", "--json"]
    words = ["extract", *map(str, [*photos, *options])]
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / "here")]) == 1
    said = {"here": capsys.readouterr().out}
    cluster = ["--ray", ray.get_runtime_context().gcs_address, "--ray-workers", "1", "--out", tmp_path / "there"]
    ended = subprocess.run(
        [sys.executable, "-m", "delf_cli", *words, *cluster], cwd=ROOT, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (1, "")
    said["there"] = ended.stdout
    found = {name: [json.loads(line) for line in lines.splitlines()] for name, lines in said.items()}
    assert found["there"][0] == found["here"][0] == {"image": str(photos[-1]), "error": found["here"][0]["error"]}
    assert {k: found["there"][1][k] for k in ("done", "failed", "stored")} == {"done": 3, "failed": 1, "stored": 3}
    assert rows(tmp_path / "there") == rows(tmp_path / "here")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "127.0.0.1:1: no Ray cluster can be reached .*refused.*`ray start --head`"),
        ("ray://127.0.0.1:1", "give host:port of the head node"),
        ("nonsense", "nonsense: no Ray cluster"),
    ],
)
def test_an_address_without_a_cluster_is_told_at_once(address: str, message: str) -> None:
    with pytest.raises(ClusterError, match=message), ray_session.connected(address):
        pass


@pytest.mark.parametrize(
    ("nodes", "asked", "expected"),
    [
        ([{"CPU": 2}], None, (1, 2, None)),
        ([{"CPU": 1}], None, (1, 1, None)),
        ([{"CPU": 2}], 2, (2, 1, None)),
        ([{"CPU": 8}, {"CPU": 4}], None, (6, 2, None)),
        ([{"CPU": 3}, {"CPU": 3}], 3, (3, 1, None)),
        ([{"CPU": 3}, {"CPU": 3}], 2, (2, 3, None)),
        ([{"CPU": 16, "GPU": 4}, {"CPU": 16, "GPU": 4}, {"CPU": 8}], None, (8, 1, "GPU")),
        ([{"CPU": 96, "TPU": 4}], 2, (2, 1, "TPU")),
    ],
)
def test_workers_have_room(
    monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, int]], asked: int | None, expected: tuple[object, ...]
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])
    assert ray_session.workers_that_fit(ray, "auto", asked) == expected


@pytest.mark.parametrize(("nodes", "asked"), [([{"CPU": 2}], 3), ([{"CPU": 9, "GPU": 1}], 2), ([{"CPU": 0}], None)])
def test_more_workers_than_fit_are_refused(
    monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, int]], asked: int | None
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])
    with pytest.raises(ClusterError, match="do not fit"):
        ray_session.workers_that_fit(ray, "auto", asked)
