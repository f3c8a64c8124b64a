"""`delf-jax compile`, and what the command says of programs: compiled, found, rejected."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from delf_jax import cache
from tests.delf_cli.conftest import SMALL, Run

ROOT = Path(__file__).resolve().parents[2]
# What takes longer than a second on an idle machine is said; here everything is.
COMMAND = "import sys; from delf_cli import compile_notes, main; compile_notes._SECONDS = 0; sys.exit(main.main())"


def in_a_new_process(cache: Path, *args: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"DELF_JAX_CACHE": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-c", COMMAND, *map(str, args)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_programs_are_compiled_once_and_again_when_they_are_damaged(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    settings = ("--model", tiny_model, *SMALL)
    first = in_a_new_process(tmp_path, "compile", photos / "box.jpg", "--json", *settings)
    assert first.returncode == 0, first.stderr
    program, folder = map(json.loads, first.stdout.splitlines())
    canvas = program.pop("canvas")
    assert program.pop("seconds") > 0
    assert program == {"compiled": True}
    assert Path(folder["folder"]) == tmp_path / "jax" / cache.processor_type()
    assert f"compiling for {canvas}, once\n" in first.stderr

    # What `extract` runs is what was compiled.
    extracted = in_a_new_process(tmp_path, "extract", photos / "box.jpg", "--out", tmp_path / "store", *settings)
    assert (extracted.returncode, "compiling for" in extracted.stderr) == (0, False)

    for entry in Path(folder["folder"]).glob("jit_apply-*-cache"):
        entry.write_bytes(b"not a program")
        os.utime(entry, (0, 0))
    repaired = in_a_new_process(tmp_path, "compile", "--sizes", canvas, *settings)
    assert repaired.stdout.startswith(f"{canvas}: compiled in ")
    assert repaired.stderr.count("damaged or made for another processor") == 1
    assert "Error reading" not in repaired.stderr
    again = in_a_new_process(tmp_path, "compile", "--sizes", canvas, *settings)
    assert again.stdout == f"{canvas}: already there\nthe programs are in {folder['folder']}\n"
    assert "compiling for" not in again.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--sizes", "480"), "--sizes has '480'; write HEIGHTxWIDTH in pixels, for example 768x1024"),
        (("--sizes", "0x640"), "--sizes has '0x640'"),
        (("nowhere.jpg",), "nowhere.jpg: there is no such file"),
        (("--max-side", "1"), "max_side is 1; it must be at least 16 pixels"),
    ],
)
def test_bad_input_is_one_line(run: Run, args: tuple[str, ...], said: str) -> None:
    done = run("compile", *args)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err


def test_programs_without_a_folder_are_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    done = run("compile", "--sizes", "480x640")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "set DELF_JAX_CACHE to a folder that can be written" in done.err
