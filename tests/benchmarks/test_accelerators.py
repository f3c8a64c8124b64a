"""The benchmark of programs for accelerators: what it reads from compiled programs, and its rows."""

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from benchmarks import accelerators, accelerators_compile, accelerators_targets
from benchmarks.accelerators_costs import operations, stages, touched, touched_bytes
from benchmarks.accelerators_hlo import Program
from benchmarks.accelerators_products import bound, products
from benchmarks.accelerators_programs import Case, program
from benchmarks.accelerators_targets import TARGETS
from benchmarks.errors import Unavailable
from retrieval.nearest import top_neighbours

# A loop of three rounds as the compiler of TPUs writes it, and one of five as that of GPUs does. In the first loop a
# fusion takes row after row of a matrix, and another sets a row of a second matrix in place.
TEXT = """HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[3,100]{1,0})->f32[100]{0}}

FileNames
1 "/somewhere/delf_jax/models/layers.py"
2 "/somewhere/else/jax/lax.py"

FunctionNames
1 "Convolution.__call__.<locals>.plain"
2 "inner"

FileLocations
1 {file_name_id=1 function_name_id=1 line=1 end_line=1 column=1 end_column=1}
2 {file_name_id=2 function_name_id=2 line=1 end_line=1 column=1 end_column=1}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}

%take (param_0: f32[3,100], param_1: s32[]) -> f32[100] {
  %param_0 = f32[3,100]{1,0} parameter(0)
  %param_1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %row = f32[1,100]{1,0} dynamic-slice(%param_0, %param_1, %zero), dynamic_slice_sizes={1,100}
  ROOT %view = f32[100]{0} bitcast(%row)
}

%put (param_0.1: f32[7,100], param_1.1: f32[100], param_2.1: s32[]) -> f32[7,100] {
  %param_0.1 = f32[7,100]{1,0} parameter(0)
  %param_1.1 = f32[100]{0} parameter(1)
  %param_2.1 = s32[] parameter(2)
  %zero.1 = s32[] constant(0)
  %as_row = f32[1,100]{1,0} bitcast(%param_1.1)
  ROOT %update = f32[7,100]{1,0} dynamic-update-slice(%param_0.1, %as_row, %param_2.1, %zero.1)
}

%body (state: (s32[], f32[3,100], f32[7,100])) -> (s32[], f32[3,100], f32[7,100]) {
  %state = (s32[], f32[3,100]{1,0}, f32[7,100]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %rows = f32[3,100]{1,0} get-tuple-element(%state), index=1
  %sums = f32[7,100]{1,0} get-tuple-element(%state), index=2
  %taken = f32[100]{0} fusion(%rows, %i), kind=kLoop, calls=%take, metadata={op_name="jit(f)/conv3/while/body/add" \
stack_frame_id=2}, backend_config={"estimated_cycles":"100"}
  %put_back = f32[7,100]{1,0} fusion(%sums, %taken, %i), kind=kLoop, calls=%put, backend_config={"estimated_cycles":"7"}
  ROOT %next = (s32[], f32[3,100]{1,0}, f32[7,100]{1,0}) tuple(%i, %rows, %put_back)
}

%condition (state.1: (s32[], f32[3,100], f32[7,100])) -> pred[] {
  %state.1 = (s32[], f32[3,100]{1,0}, f32[7,100]{1,0}) parameter(0)
  %last = s32[] constant(3)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  ROOT %less = pred[] compare(%i.1, %last), direction=LT
}

%other_body (state.2: f32[100]) -> f32[100] {
  %state.2 = f32[100]{0} parameter(0)
  ROOT %double = f32[100]{0} add(%state.2, %state.2), backend_config={"estimated_cycles":"10"}
}

%other_condition (state.3: f32[100]) -> pred[] {
  %state.3 = f32[100]{0} parameter(0)
  %end = pred[] constant(false)
  ROOT %not = pred[] not(%end)
}

ENTRY %main.1 (x: f32[3,100], sums.1: f32[7,100], y: f32[100]) -> f32[100] {
  %x = f32[3,100]{1,0} parameter(0)
  %sums.1 = f32[7,100]{1,0} parameter(1)
  %y = f32[100]{0} parameter(2)
  %start = s32[] constant(0)
  %begin = (s32[], f32[3,100]{1,0}, f32[7,100]{1,0}) tuple(%start, %x, %sums.1)
  %loop = (s32[], f32[3,100]{1,0}, /*index=2*/f32[7,100]{1,0}) while(%begin), condition=%condition, body=%body
  %again = f32[100]{0} while(%y), condition=%other_condition, body=%other_body, \
backend_config={"known_trip_count":{"n":"5"}}
  %until = f32[100]{0} while(%again), condition=%other_condition, body=%other_body
  %near = (f32[100]{0:T(128)S(1)}, f32[100]{0:T(128)}, u32[]{:S(2)}) copy-start(%until)
  %here = f32[100]{0:T(128)S(1)} copy-done(%near)
  %all = f32[100]{0} all-reduce-start(%until), replica_groups={}, to_apply=%other_body
  ROOT %done = f32[100]{0} all-reduce-done(%all)
}
"""


def test_loops_count_as_often_as_they_run() -> None:
    text = Program(TEXT)
    kernels = [run for run in text.runs if run.instruction.is_kernel]
    assert text.size == 5 + 6 + 7 + 4 + 2 + 3 + 12
    found = [(run.instruction.name, run.times) for run in kernels]
    # The comparisons of the conditions run too; the last loop's length depends on data, and counts once.
    assert [each for each in found if each[0] in ("taken", "double", "less")] == [
        *[("taken", 3), ("less", 3), ("double", 5), ("double", 1)]
    ]
    assert text.cycles == 3 * (100 + 7) + 5 * 10 + 10
    assert text.unknown_loops == 1
    assert sum(run.instruction.is_collective for run in text.runs) == 1


def test_kernels_touch_what_they_slice_and_not_what_they_keep() -> None:
    text = Program(TEXT)
    costs = {run.instruction.name: touched(text, run) for run in text.runs}
    assert costs["taken"] == 400 + 4 + 400
    assert costs["put_back"] == 400 + 4 + 400
    assert costs["double"] == 400 + 400
    # 100 numbers fill a tile of 128; one side of the copy lies in main memory.
    assert costs["near"] == 512
    assert costs["here"] == costs["loop"] == costs["done"] == 0
    assert touched_bytes(text) == sum(run.times * touched(text, run) for run in text.runs)


def test_operations_alike_are_one_line_with_the_stage_that_they_are_from() -> None:
    found = operations(Program(TEXT))
    assert [(each.what, each.stage, each.count, each.cost) for each in found] == [
        ("fusion f32[100]", "conv3 models/layers: Convolution", 3, 300),
        ("add f32[100]", "compiler", 6, 60),
        ("fusion f32[7,100]", "compiler", 3, 21),
    ]
    assert stages(found) == pytest.approx({"conv3 models/layers: Convolution": 300 / 381, "compiler": 81 / 381})


def test_the_text_of_a_real_program_is_read() -> None:
    queries, blocks = jnp.ones((4, 8)), jnp.ones((6, 16, 8))
    compiled = top_neighbours.lower(queries, blocks, np.int32(90), k=3).compile()
    text = Program(compiled.as_text())
    assert text.unknown_loops == 0
    assert {run.times for run in text.runs} == {1, 6}
    found = operations(text)
    assert "nearest: top_neighbours" in {each.stage for each in found}
    # Without estimates of cycles, bytes are the cost: at least the blocks and the result.
    assert sum(each.cost for each in found) == touched_bytes(text) > blocks.nbytes


def test_products_are_counted_in_loops_and_for_the_platform() -> None:
    def compute(x: Any, kernel: Any) -> Any:
        y, _ = lax.scan(lambda carry, _: (carry @ x, None), x, None, length=5)
        z = lax.platform_dependent(x, cpu=lambda x: x @ x @ x, default=lambda x: x @ x)
        w = lax.cond(x[0, 0] > 0, lambda x: jnp.matmul(x, x, precision="highest"), lambda x: x, x)
        image = lax.conv_general_dilated(jnp.ones((2, 10, 12, 3)), kernel, (1, 1), "SAME", dimension_numbers=NHWC)
        return y + z + w, image

    jaxpr = jax.jit(compute).trace(jnp.ones((8, 8)), jnp.ones((3, 3, 3, 7))).jaxpr
    product, moved = 2 * 8**3, 3 * 8 * 8 * 4
    convolution = 2 * (2 * 10 * 12 * 7) * (3 * 3 * 3)
    for platform, twice in (("cpu", 1), ("tpu", 0)):
        found = list(products(jaxpr.jaxpr, platform))
        assert (
            sum(each.times * each.flop for each in found) == 5 * product + (1 + twice) * product + product + convolution
        )
        assert [each.kind for each in found].count("float32_products") == 1
        assert sum(each.bytes == moved for each in found) == 3 + twice
    v5e = TARGETS["v5e"]
    limit = bound(jaxpr, v5e)
    assert limit.arithmetic_s == pytest.approx((6 * product + convolution + 6 * product) / v5e.products)
    assert limit.seconds == max(limit.arithmetic_s, limit.bandwidth_s)


NHWC = ("NHWC", "HWIO", "NHWC")


def test_precision_decides_the_rate() -> None:
    def kinds(dtype: str, precision: Any) -> list[str]:
        x = jnp.ones((4, 4), dtype)
        jaxpr = jax.jit(lambda x: jnp.matmul(x, x, precision=precision)).trace(x).jaxpr
        return [each.kind for each in products(jaxpr.jaxpr, "tpu")]

    assert kinds("bfloat16", "highest") == ["products"]
    assert kinds("float32", "highest") == ["float32_products"]
    assert kinds("float32", lax.Precision.HIGH) == ["high_products"]
    assert kinds("float32", lax.DotAlgorithmPreset.BF16_BF16_F32_X3) == ["high_products"]
    assert kinds("float32", None) == ["default_products"]


@pytest.mark.parametrize("case", [Case("extract", size=(32, 48), batch=2), Case("maps", size=(32, 48)), Case("ransac")])
def test_arguments_are_those_that_were_compiled_for(case: Case) -> None:
    made = program(case, jax.devices()[:1])
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), made.abstract())
    assert shapes == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), made.concrete())
    jax.eval_shape(made.function, *made.abstract())


def test_a_program_runs_where_the_chip_is() -> None:
    row = accelerators_compile.measured_row(Case("maps", size=(64, 96), batch=2), "v5e")
    low, high = row["measured_per_s_quartiles"]
    assert 0 < low <= row["measured_per_s"] <= high
    assert 0 < row["measured_of_roofline"]


def test_all_cases_hold_the_quick_ones_and_none_twice() -> None:
    quick, full = accelerators.cases(quick=True), accelerators.cases(quick=False)
    assert [case.program for case in quick] == ["extract", "dense", "ransac", "search", "maps"]
    assert full[: len(quick)] == quick
    assert len(full) == len(set(full)) == 24 + 1 + 4 + 1 + 1


def test_rows_say_why_they_are_empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def reason(name: accelerators_targets.Name = "v5e", end: float = float("inf")) -> str:
        skipped: str = accelerators.row_of(Case("search"), name, kind="cpu", end=end)["skipped"]
        return skipped

    def acting(script: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    def missing(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    with monkeypatch.context() as patched:
        patched.setattr(importlib.metadata, "version", missing)
        assert reason() == "not compiled: libtpu is not installed; pip install delf-jax[aot]"
        assert reason("h200").startswith("not compiled: jax-cuda13-plugin is not installed")
    monkeypatch.setattr(accelerators, "require_compiler", lambda name: None)
    assert reason(end=0.0) == "not run: no time was left"
    acting("kill -SEGV $$")
    assert reason() == "not compiled: the compiler ended by SIGSEGV"
    acting("echo first >&2; echo out of memory >&2; exit 1")
    assert reason() == "not compiled: out of memory"
    monkeypatch.setattr(accelerators, "_LIMIT_SECONDS", 0.1)
    acting("exec sleep 60")
    assert reason() == "not compiled: it took longer than 0 s"


def test_model_and_measurement_stand_side_by_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = {
        "--no-measure": {"launches": 7, "model_per_s": 100.0, "costliest": [COSTLY]},
        "--measure": {"measured_per_s": 90.0},
    }
    monkeypatch.setattr(accelerators, "require_compiler", lambda name: None)
    monkeypatch.setattr(accelerators, "_of_process", lambda case, name, options, variables, end: answers[options[0]])
    monkeypatch.setattr(accelerators, "device_kind", lambda: "TPU v5 lite")
    out = tmp_path / "rows.json"
    accelerators.main(accelerators.Options(target=("v5e", "h200"), program=("search",), quick=True, out=out))
    written = json.loads(out.read_text())
    tpu, gpu = written["rows"]
    assert (tpu["model_per_s"], tpu["measured_per_s"]) == (100.0, 90.0)
    assert gpu["not_measured"] == "this machine has no h200"
    named = {name for names in written["settings"]["figures"].values() for name in names}
    assert {"launches", "model_per_s", "measured_per_s"} <= named
    text = accelerators.table(written["rows"])
    assert "model: 100 a second; measured: 90 a second" in text
    assert text.count("18.1%     1 x copy bf16[8,3]") == 2


COSTLY = {"what": "copy bf16[8,3]", "stage": "models/layers: mask_padding", "count": 1, "share": 0.181}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v5e", "h200"])
def test_a_program_compiles_for_a_chip_that_is_not_there(name: accelerators_targets.Name) -> None:
    try:
        accelerators_targets.require_compiler(name)
    except Unavailable as error:
        pytest.skip(str(error))
    row = accelerators.row_of(Case("dense", size=(96, 128), batch=1), name, kind="cpu")
    assert "skipped" not in row, row["skipped"]
    assert row["collectives"] == row["loops_of_unknown_length"] == 0
    # Six megabytes of weights are read at least, and a photo of 96x128 has a 25th of the pixels of 480x640.
    assert row["gflop"] == pytest.approx(38.25 / 25, rel=0.02)
    assert row["touched_megabytes"] > 6
    assert 20 < row["launches"] <= row["instructions"]
    assert row["compile_processor_s"] > 0
    assert ("model_per_s" in row) == (name == "v5e")
    if name == "v5e":
        assert row["devices"] == 4
        assert 0 < row["model_of_arithmetic"] < 1
    assert len(row["costliest"]) == 10
    assert sum(row["stages"].values()) == pytest.approx(1)
