"""The benchmark of throughput runs on a small model, and PyTorch computes the same network there."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import delf_jax
from benchmarks import device_probe, throughput, throughput_stages
from benchmarks.errors import Unavailable
from benchmarks.throughput_cases import Bench, Case, batches, best_peers, cases, fitted, with_peak
from benchmarks.torch_network import CHANNELS_LAST, EAGER, attention_network
from delf_jax.extraction import attention

SIZE = (64, 96)


def test_photos_are_cut_from_their_middle_to_the_size() -> None:
    photo = np.zeros((50, 100, 3), np.uint8)
    photo[:, 25:75] = 200
    assert fitted(photo, (50, 50)).min() == 200
    assert fitted(photo, (100, 100)).shape == (100, 100, 3)
    assert fitted(photo, (20, 90)).shape == (20, 90, 3)
    made = batches([photo], Case("backbone", (20, 20), 1, 3, ("float32",), ()), 2)
    assert [batch.shape for batch in made] == [(3, 20, 20, 3)] * 2


def test_full_runs_measure_more_and_accelerators_larger_batches() -> None:
    routine, full = (cases(full=full, accelerator=False) for full in (False, True))
    assert len(full) > len(routine)
    assert {case.scales for case in routine} == {1, 4, 7}
    assert {case.size for case in routine} == {(480, 640), (768, 1024)}
    assert min(case.batch for case in cases(full=False, accelerator=True)) >= 8
    assert "stream" in {case.part for case in full} - {case.part for case in cases(full=True, accelerator=True)}


def test_the_best_peer_is_the_one_that_is_hardest_to_beat() -> None:
    common = {"part": "backbone", "size": "a", "scales": 1, "batch": 1, "precision": "float32"}
    rows: list[dict[str, Any]] = [
        common | {"who": "ours", "gflop_per_s": 50.0},
        common | {"who": "slow", "ours_is_faster": 2.0},
        common | {"who": "fast", "ours_is_faster": 1.25},
        common | {"who": "other precision", "ours_is_faster": 0.5, "precision": "bfloat16"},
        common | {"who": "absent", "skipped": "why"},
    ]
    assert [(row["who"], row["ours_is_faster"]) for row in best_peers(rows)] == [("fast", 1.25)]
    assert with_peak(rows, {"float32": 200e9})[0]["of_peak"] == 0.25


@pytest.mark.slow
def test_pytorch_takes_turns_with_us_on_the_same_network(tiny_model: Path) -> None:
    torch = pytest.importorskip("torch")
    bench = Bench(str(tiny_model))
    photos = [np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), np.uint8)]
    case = Case("extraction", SIZE, 4, 2, ("float32",), (EAGER, CHANNELS_LAST))
    rows = bench.measure(case, photos, budget=0.0)
    assert [row["who"] for row in rows] == ["ours", EAGER.name, CHANNELS_LAST.name]
    assert all(row["photos_per_s"] > 0 for row in rows)
    assert rows[0]["gflop"] > 0
    assert all(row["ours_is_faster"] > 0 for row in rows[1:])
    ours, theirs = bench.measure(case._replace(part="stream", scales=1, peers=(EAGER,)), photos, budget=0.0)
    assert ours["photos_per_s"] > 0
    assert theirs["ours_is_faster"] > 0
    found = bench.peer(EAGER).extract(photos[0], scales=(0.5, 1.0), max_features=20)
    assert found["descriptors"].shape[:2] == (2, 20)
    np.testing.assert_allclose(np.linalg.norm(found["descriptors"], axis=-1), 1, rtol=1e-5)
    assert (np.diff(found["scores"], axis=1) <= 0).all()
    dense = bench.peer(EAGER).backbone(photos[0]).permute(0, 2, 3, 1).numpy()
    head = bench.extractor(scales=1, batch=2, precision="float32").params["head"]
    scores = np.sort(attention.score(dense, head, "learned").reshape(2, -1))
    found = bench.peer(EAGER).extract(photos[0], scales=(1.0,), max_features=20)
    np.testing.assert_allclose(found["scores"], scores[:, :-21:-1], rtol=1e-4)
    with pytest.raises(Unavailable, match="this scorer"):
        attention_network(torch, {}, "foreground")


@pytest.mark.slow
def test_every_stage_is_measured(tiny_model: Path, demo_photos: Path) -> None:
    extractor = delf_jax.load(tiny_model, scales=(0.7071, 1.0), max_side=96, batch_size=2)
    rows = throughput_stages.stages(extractor, [demo_photos / "box.jpg"], SIZE, rounds=1)
    names = [row["who"] for row in rows]
    assert names == ["decode", "transfer", "pyramid", "backbone", "selection", "write", "whole program"]
    assert all(row["ms"] > 0 for row in rows)
    jobs = throughput_stages.batch_job(extractor, [demo_photos / "box.jpg"], rounds=1)
    assert [row["who"] for row in jobs] == ["extraction alone", "JPEG files to store"]
    text = throughput.table([*rows, *jobs])
    assert len(text.splitlines()) == 9
    assert "over extraction alone" in text


def test_a_probe_compiles_runs_and_reports_missing_devices(tiny_model: Path) -> None:
    options = device_probe.Options(model=str(tiny_model), size=SIZE, scales=1, batch=2, runs=2)
    found = device_probe.probe(options)
    assert found["compile_s"] > 0
    assert found["photos_per_s"] > 0
    assert found["process_megabytes"] > 10
    assert "skipped" in device_probe.probe(dataclasses.replace(options, devices=512))


def test_a_plot_has_one_panel_a_size(tmp_path: Path) -> None:
    rows = [
        {"part": "extraction", "size": size, "scales": n, "batch": 1, "who": who, "photos_per_s": 9.0 / n}
        for size in ("480x640", "768x1024")
        for n in (1, 4, 7)
        for who in ("ours", "PyTorch")
    ]
    throughput.draw(tmp_path / "plot.svg", rows)
    text = (tmp_path / "plot.svg").read_text()
    assert text.count("<polyline") == 4
    assert "768x1024 pixels" in text
