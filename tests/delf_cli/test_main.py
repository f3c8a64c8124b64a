"""The frame of the command: usage, help, exit codes, and what goes to which stream."""

import dataclasses
import errno
import json
import subprocess
import sys
from collections.abc import Callable
from typing import ClassVar

import pytest

from delf_cli import main as main_module
from delf_cli.main import main
from delf_cli.report import Report
from delf_jax.errors import DelfError

SUBCOMMANDS = sorted(main_module._COMMANDS)


@pytest.fixture
def does(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Report], None]], None]:
    """Puts an action in the place of `match`, to see what the frame makes of it."""

    def install(action: Callable[[Report], None]) -> None:
        @dataclasses.dataclass(frozen=True)
        class Probe:
            """Probe."""

            json: bool = False
            example: ClassVar[str] = "delf-jax match"

            def run(self, report: Report) -> None:
                action(report)

        monkeypatch.setattr(main_module, "Probe", Probe, raising=False)
        monkeypatch.setitem(main_module._COMMANDS, "match", "delf_cli.main:Probe")

    return install


def raises(error: BaseException) -> Callable[[Report], None]:
    def action(report: Report) -> None:
        raise error

    return action


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_subcommand_has_help_with_an_example_and_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    output = capsys.readouterr()
    assert f"Example:\n  delf-jax {name}" in output.out
    assert "--json" in output.out
    assert "(default: )" not in output.out
    assert output.err == ""


def test_help_lists_the_subcommands_by_their_first_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    for name in SUBCOMMANDS:
        assert f"• {name}" in listed
    assert "Example" not in listed


def test_help_does_not_wait_for_heavy_imports() -> None:
    code = (
        "import sys; from delf_cli.main import main; main(['extract', '--help'])\nprint(*sys.modules, file=sys.stderr)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.split()
    assert not {"jax", "flax", "scann", "cv2", "pyarrow"} & set(loaded)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "Expected one of {demo, extract,"),
        (["finde"], "Unrecognized options: finde"),
        (["extract", "a.jpg", "--out", "x", "--scorer", "best"], "invalid choice 'best' for argument '--scorer'"),
        (["extract", "a.jpg", "--out", "x", "--max-features", "many"], "Error parsing --max-features"),
        (["extract", "a.jpg", "--out", "x", "--max-feature", "5"], "Unrecognized options: --max-feature"),
        (["extract", "a.jpg"], "--out"),
        (["extract", "a.jpg", "--out", "x", "--max-features", "0"], "max_features is 0; it must be at least 1"),
        (["extract", "a.jpg", "--out", "x", "--batch-size", "0"], "--batch-size is 0; it must be at least 1"),
        (["search", "index"], "photo"),
        (["extract", "--out", "x"], "photo"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(args) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.startswith("delf-jax: ")
    assert said in output.err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DelfError("store: is damaged; run check\nnow"), 2, "delf-jax: store: is damaged; run check now"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/full/part"),
            2,
            "delf-jax: /full/part: the disk is full; free some space",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/root"),
            2,
            "delf-jax: /root: Permission denied; change its permissions",
        ),
        (MemoryError(), 2, "delf-jax: out of memory: use a smaller"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 5 bytes"),
            2,
            "delf-jax: out of device memory: use a smaller",
        ),
        (KeyboardInterrupt(), 130, "delf-jax: interrupted"),
    ],
)
def test_errors_are_one_line_without_traceback(
    error: BaseException, code: int, said: str, does: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    does(raises(error))
    assert main(["match"]) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.startswith(said)


def test_mistake_of_the_program_shows_its_traceback(does: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    does(raises(ZeroDivisionError("oops")))
    assert main(["match"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert "please report it: ZeroDivisionError: oops" in error.splitlines()[-1]


@pytest.mark.parametrize(("succeeded", "failed", "code"), [(0, 0, 0), (3, 0, 0), (3, 1, 1), (0, 2, 2)])
def test_exit_code_follows_from_what_became_of_the_inputs(
    succeeded: int, failed: int, code: int, does: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    def action(report: Report) -> None:
        report.succeeded += succeeded
        for number in range(failed):
            report.failure("image", f"{number}.jpg", "is empty; fetch it again")

    does(action)
    assert main(["match"]) == code
    assert capsys.readouterr().err.splitlines() == [f"{n}.jpg: is empty; fetch it again" for n in range(failed)]


def test_json_prints_objects_and_nothing_else(does: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    def action(report: Report) -> None:
        report.note("only for people")
        report.result({"image": "a\nb\udcff.jpg", "log10_nfa": float("inf"), "transform": [[1.0, 0.5]]}, "never shown")
        report.failure("query", "c.jpg", "is empty")

    does(action)
    main(["match", "--json"])
    output = capsys.readouterr()
    assert [json.loads(line) for line in output.out.splitlines()] == [
        {"image": "a\nb\udcff.jpg", "log10_nfa": None, "transform": [[1.0, 0.5]]},
        {"query": "c.jpg", "error": "is empty"},
    ]
    assert output.err == ""


def test_reader_that_goes_away_is_no_error_message() -> None:
    code = (
        "import sys; from delf_cli import main, match, report\n"
        "def run(self, report):\n"
        "    for number in range(100000): report.result({'number': number}, '')\n"
        "match.Match.run = run\n"
        "sys.exit(main.main(['match', 'a.jpg', 'b.jpg', '--json']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == {"number": 0}
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 130
