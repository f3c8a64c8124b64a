"""A run tells what it did and cost: in the store, for Prometheus, and to whoever reads the log."""

import contextlib
import json
import logging
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

import delf_jax
from delf_jax.errors import StoreError
from delf_jax.job import JobOptions, extraction_job
from delf_jax.photos.meter import CompilationCount, Meter
from delf_jax.settings import ExtractionSettings
from delf_jax.store.reader import FeatureStore
from delf_jax.store.repair import repair
from delf_jax.store.run_report import RunReport, failure_kind
from tests.delf_jax.fake_extractor import FakeExtractor
from tests.delf_jax.job.test_job import Interrupted, save_photo


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed in range(5):
        save_photo(tmp_path / "photos" / f"{seed}.bmp", seed)
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    (tmp_path / "photos" / "empty.jpg").touch()
    (tmp_path / "photos" / "none.png").touch()
    return tmp_path / "photos"


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_run_counts_photos_failures_bytes_and_parts(photos: Path, tmp_path: Path) -> None:
    extraction_job.run(FakeExtractor(), [photos], tmp_path / "store", options=JobOptions(part_photos=2))
    extraction_job.run(FakeExtractor(), [photos], tmp_path / "store")
    first, second = FeatureStore.open(tmp_path / "store").runs()
    assert (first.outcome, first.error) == ("finished", None)
    assert (first.done, first.skipped, first.failed, first.parts) == (5, 0, 3, 3)
    assert first.failures == {"the file is damaged or cut short": 1, "the file is empty": 2}
    assert first.bytes_read == size_of(photos)
    parts = [path.stat().st_size for path in (tmp_path / "store" / "parts").iterdir()]
    assert sum(parts) < first.bytes_written < sum(parts) + 50_000
    assert 0 < first.stages["write"] < first.seconds
    assert abs(first.started + first.seconds - time.time()) < 60
    assert (second.done, second.skipped, second.failed, second.parts) == (0, 5, 3, 0)


def test_a_real_extractor_tells_its_stages_programs_and_idle_device(
    demo_photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    extractor = delf_jax.load(tiny_model, settings=ExtractionSettings(max_side=240, max_features=100, scales=(1.0,)))
    extraction_job.run(extractor, [demo_photos / "box.jpg", demo_photos / "graf1.jpg"], tmp_path / "store")
    (report,) = FeatureStore.open(tmp_path / "store").runs()
    assert report.devices == tuple(device.device_kind for device in jax.local_devices())
    assert report.compiled + report.cached >= extractor.compiled_programs >= 1
    assert report.compile_seconds > 0
    assert 0 < report.stages["decode"]
    assert 0 < report.stages["compute"] < report.seconds
    assert report.device_idle_share == pytest.approx(1 - report.stages["compute"] / report.seconds)


def test_time_of_threads_that_share_a_stage_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    meter = Meter()
    first, second = meter.shared_stage("compute"), meter.shared_stage("compute")
    for at, block in ((1.0, first), (3.0, second)):
        clock[0] = at
        block.__enter__()
    for at, block in ((6.0, first), (8.0, second)):
        clock[0] = at
        block.__exit__(None, None, None)
        assert meter.seconds() == {"compute": at - 1}
        clock[0] = at + 0.5
        assert meter.seconds() == {"compute": 5.5 if block is first else 7.0}
    clock[0] = 20.0  # nobody was inside
    with contextlib.suppress(StoreError), meter.shared_stage("compute"):
        clock[0] = 21.0
        raise StoreError("broken")
    assert meter.seconds() == {"compute": 8.0}


def test_programs_are_counted_while_the_count_is_open() -> None:
    jax.jit(lambda x: x + 17)(np.ones(3))
    with CompilationCount() as count:
        assert count.total() == (0, 0, 0.0)
        jax.jit(lambda x: x * 3 + 18)(np.ones(3)).block_until_ready()
        assert sum(count.total()[:2]) >= 1
        assert count.total().seconds > 0
    total = count.total()
    jax.jit(lambda x: x * 5 + 19)(np.ones(3))
    assert count.total() == total


def test_an_interrupted_and_a_failed_run_say_so(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        extraction_job.run(Interrupted(), [photos], tmp_path / "store")

    class Broken(FakeExtractor):
        def stream(self, items, *, workers=None):  # type: ignore[no-untyped-def]
            raise RuntimeError("the device is gone")

    with pytest.raises(RuntimeError):
        extraction_job.run(Broken(), [photos], tmp_path / "store")
    runs = FeatureStore.open(tmp_path / "store").runs()
    assert [(run.outcome, run.error) for run in runs] == [
        ("interrupted", None),
        ("failed", "RuntimeError: the device is gone"),
    ]
    assert runs[0].done == 3


def test_prometheus_reads_the_metrics(photos: Path, tmp_path: Path) -> None:
    extraction_job.run(
        FakeExtractor(), [photos], tmp_path / "store", options=JobOptions(metrics=tmp_path / "delf.prom")
    )
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in text_string_to_metric_families((tmp_path / "delf.prom").read_text())
        for sample in metric.samples
    }
    (report,) = FeatureStore.open(tmp_path / "store").runs()
    assert samples["delf_jax_extract_photos_total", "done"] == 5
    assert samples["delf_jax_extract_failures_total", "the file is empty"] == 2
    assert samples["delf_jax_extract_bytes_total", "read"] == report.bytes_read
    assert samples["delf_jax_extract_stage_seconds_total", "write"] > 0
    assert samples["delf_jax_extract_device_idle_ratio",] == 1
    assert samples["delf_jax_extract_outcome", "finished"] == 1
    assert samples["delf_jax_extract_outcome", "running"] == 0
    with pytest.raises(StoreError, match="the metrics cannot be written"):
        extraction_job.run(
            FakeExtractor(), [photos], tmp_path / "store", options=JobOptions(metrics=tmp_path / "no" / "folder.prom")
        )


def test_check_names_a_damaged_report_and_repair_removes_it(photos: Path, tmp_path: Path) -> None:
    for _ in range(2):
        extraction_job.run(FakeExtractor(), [photos], tmp_path / "store")
    newest = sorted((tmp_path / "store" / "runs").iterdir())[-1]
    newest.write_bytes(newest.read_bytes().replace(b'"done": 0', b'"done": 9').replace(b'"done": 5', b'"done": 9'))
    opened = FeatureStore.open(tmp_path / "store")
    assert [damage.name for damage in opened.check()] == [f"runs/{newest.name}"]
    assert len(opened.runs()) == 1
    assert len(repair(tmp_path / "store")) == 1
    assert FeatureStore.open(tmp_path / "store").check() == []
    assert len(FeatureStore.open(tmp_path / "store")) == 5


@pytest.mark.parametrize("data", [b"", b"[]", b"[" * 100_000, b'{"version": "1"}', b'{"version": 1, "run": {}}'])
def test_no_report_is_an_error_of_the_store(data: bytes) -> None:
    with pytest.raises(StoreError, match=r"r\.json: this run report is damaged"):
        RunReport.from_bytes(data, "r.json")


def test_of_old_reports_the_last_hundred_stay(photos: Path, tmp_path: Path) -> None:
    extraction_job.run(FakeExtractor(), [photos], tmp_path / "store")
    runs = tmp_path / "store" / "runs"
    (report,) = runs.iterdir()
    for number in range(120):
        (runs / f"run-20200101T000000.000000Z-{number:08x}.json").write_bytes(report.read_bytes())
    extraction_job.run(FakeExtractor(), [photos], tmp_path / "store")
    names = sorted(path.name for path in runs.iterdir())
    assert len(names) == 100
    assert names[0] == f"run-20200101T000000.000000Z-{120 - 98:08x}.json"


def test_kinds_of_failures_stay_few() -> None:
    reasons = [
        "cannot be read ([Errno 5] Input/output error); check the disk or the connection",
        "its protocol needs a package that is not installed: Install s3fs",
        "10 x 20 pixels are above the limit of 0.1 megapixels; save it smaller",
        "30 x 40 pixels are above the limit of 200 megapixels; save it smaller",
    ]
    assert [failure_kind(reason) for reason in reasons] == [
        "cannot be read",
        "its protocol needs a package that is not installed",
        "N x N pixels are above the limit of N megapixels",
        "N x N pixels are above the limit of N megapixels",
    ]


def test_the_job_logs_its_parts_and_failures(photos: Path, tmp_path: Path) -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("delf_jax")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        extraction_job.run(FakeExtractor(), [photos], tmp_path / "store", options=JobOptions(part_photos=3))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    events = [record.getMessage() for record in records]
    assert events[0] == "job started"
    assert events[-1] == "job finished"
    assert events.count("part written") == 2
    assert events.count("photo failed") == 3
    assert json.dumps(vars(records[-1])["failed"]) == "3"
