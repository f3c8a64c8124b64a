"""Ctrl-C and SIGTERM: real signals to real processes, at any instant, in places where Python loses them too."""

import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from delf_cli.exit_codes import failure_of
from delf_cli.interrupts import interruptible
from delf_cli.main import main
from delf_jax.errors import DelfError
from delf_jax.store.reader import FeatureStore
from tests.conftest import ROOT
from tests.delf_jax.training.class_folders import write_class_folders

MESSAGE = f"delf-jax: {failure_of(KeyboardInterrupt()).message}\n"


def run(action: Callable[[], None]) -> None:
    with interruptible():
        action()
        time.sleep(5)


def ask(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


class AsksWhenItGoes:
    def __del__(self) -> None:
        ask()


def in_a_finalizer() -> None:
    AsksWhenItGoes()


def in_a_weak_references_callback() -> None:
    things = [threading.Event()]
    reference = weakref.ref(things[0], lambda _: ask())
    things.clear()
    assert reference() is None


def in_the_garbage_collector() -> None:
    def callback(phase: str, info: dict[str, int]) -> None:
        gc.callbacks.remove(callback)
        ask()

    gc.callbacks.append(callback)
    gc.collect()


def under_a_library_that_catches_everything() -> None:
    try:
        ask()
    except:  # noqa: E722
        return


@pytest.mark.parametrize(
    "somewhere",
    [
        in_a_finalizer,
        in_a_weak_references_callback,
        in_the_garbage_collector,
        under_a_library_that_catches_everything,
    ],
)
def test_an_interruption_is_never_lost(somewhere: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    hook = sys.unraisablehook
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(somewhere)
    assert time.monotonic() - begin < 30
    assert capsys.readouterr().err == ""
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)] == handlers
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert sys.unraisablehook is hook


def test_it_comes_once_however_long_tidying_up_takes() -> None:
    tidied = []

    def action() -> None:
        try:
            ask(signal.SIGTERM)
        finally:
            time.sleep(0.5)
            tidied.append(True)

    with pytest.raises(KeyboardInterrupt):
        run(action)
    assert tidied


def test_asked_twice_it_does_not_wait_for_tidying_up() -> None:
    tidied = []

    def action() -> None:
        try:
            ask()
        finally:
            ask()
            tidied.append(True)

    with pytest.raises(KeyboardInterrupt):
        run(action)
    assert not tidied


ASKED_WHILE_LOADING = """
import os, signal, sys, time
from importlib.machinery import ExtensionFileLoader
from delf_cli.exit_codes import failure_of
from delf_cli.interrupts import interruptible

def loading():
    frame = sys._getframe()
    while frame and not isinstance(frame.f_locals.get("self"), ExtensionFileLoader):
        frame = frame.f_back
    return frame and frame.f_locals["self"].name

class Asks:
    name = None
    def find_spec(self, name, path, target=None):
        if self.name is None and loading():
            self.name = loading()
            os.kill(os.getpid(), signal.SIGINT)

asks = Asks()
sys.meta_path.insert(0, asks)
try:
    with interruptible():
        import jaxlib._jax
        time.sleep(5)
except KeyboardInterrupt:
    print("interrupted", asks.name in sys.modules)
"""


def test_a_compiled_module_is_loaded_to_its_end() -> None:
    """Some of them crash when the Python code that they call while they are being made raises."""
    finished = subprocess.run([sys.executable, "-c", ASKED_WHILE_LOADING], cwd=ROOT, capture_output=True, text=True)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "interrupted True\n", "")


BUSY_THREAD = """
import os, signal, threading
from delf_cli import main, match

def run(self, report):
    threading.Thread(target=threading.Event().wait).start()
    try:
        print("written", end=" ")
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        print("tidied", end="")

match.Match.run = run
main.process()
"""


def test_the_process_ends_at_once_with_all_it_said_whatever_its_threads_do() -> None:
    command = [sys.executable, "-c", BUSY_THREAD, "match", "a.jpg", "b.jpg"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (finished.returncode, finished.stdout, finished.stderr) == (130, "written tidied", MESSAGE)


def test_errors_that_libraries_make_of_it_are_interruptions_and_own_ones_stay() -> None:
    def convert(kind: type[Exception]) -> None:
        with interruptible():
            try:
                ask()
            except KeyboardInterrupt:
                raise kind("cancelled") from None

    with pytest.raises(KeyboardInterrupt):
        convert(RuntimeError)
    with pytest.raises(DelfError, match="cancelled"):
        convert(DelfError)
    with pytest.raises(RuntimeError), interruptible():
        raise RuntimeError


def test_signals_belong_to_the_host_outside_the_main_thread_and_when_ignored() -> None:
    seen = []

    def look() -> None:
        with interruptible():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            ask()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, demo_photos: Path) -> Path:
    """So many photos in class folders that there is time to interrupt; not to be changed."""
    once = write_class_folders(tmp_path_factory.mktemp("once") / "photos", demo_photos, side=192)
    folder = tmp_path_factory.mktemp("many")
    for photo in once.glob("*/*.jpg"):
        (folder / photo.parent.name).mkdir(exist_ok=True)
        for number in range(4):
            shutil.copy(photo, folder / photo.parent.name / f"{photo.stem}_{number}.jpg")
    return folder


def handles_signals(process: subprocess.Popen[str]) -> bool:
    """Whether Python is so far that `delf-jax` has its handlers in place."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGALRM - 1) & 1)


@pytest.fixture(scope="module")
def interrupt_and_finish(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Path]]:
    """Runs a command undisturbed, and again with a signal at every instant until a last run may finish."""

    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell which signals a process handles")

    def run(*args: str | Path, instants: list[Callable[[Path], bool]]) -> tuple[Path, Path]:
        def start(out: Path) -> subprocess.Popen[str]:
            command = [sys.executable, "-m", "delf_cli", *map(str, args), "--out", str(out), "--json"]
            return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

        def finish(out: Path) -> None:
            assert main([*map(str, args), "--out", str(out), "--json"]) == 0

        folder = tmp_path_factory.mktemp("interrupted")
        whole, stopped = folder / "whole", folder / "stopped"
        finish(whole)
        for number, instant in enumerate(instants):
            with start(stopped) as process:
                while process.poll() is None and not (handles_signals(process) and instant(stopped)):
                    time.sleep(0.005)
                begin = time.monotonic()
                process.send_signal((signal.SIGINT, signal.SIGTERM)[number % 2])
                err = process.communicate()[1]
            assert (process.returncode, err) == (130, MESSAGE), instant
            assert time.monotonic() - begin < 20
        finish(stopped)
        return whole, stopped

    return run


def after(seconds: float) -> Callable[[Path], bool]:
    def instant(out: Path) -> bool:
        time.sleep(seconds)
        return True

    return instant


def lines(name: str, number: int) -> Callable[[Path], bool]:
    return lambda out: (out / name).is_file() and (out / name).read_bytes().count(b"\n") >= number


@pytest.mark.slow
def test_extract_at_several_instants(interrupt_and_finish: Callable, many: Path, small: tuple[str, ...]) -> None:
    instants = [after(0), Path.exists, lambda out: out.exists() and after(0.3)(out)]
    whole, stopped = interrupt_and_finish("extract", many, *small, instants=instants)
    expected = {photo.path: photo.features for photo in FeatureStore.open(whole)}
    found = {photo.path: photo.features for photo in FeatureStore.open(stopped)}
    assert found.keys() == expected.keys()
    for path, features in found.items():
        np.testing.assert_array_equal(features.descriptors, expected[path].descriptors)


@pytest.mark.slow
def test_train_at_several_instants(interrupt_and_finish: Callable, many: Path, tiny_model: Path) -> None:
    instants = [
        lambda out: any(out.glob("features/.training.*/features.npy")),  # while dense features are computed
        lambda out: any(out.glob("checkpoints/*")),
        lines("metrics.jsonl", 20),
    ]
    options = ("--preset", "tiny", "--model", tiny_model, "--steps", "40")
    whole, stopped = interrupt_and_finish("train", many, *options, instants=instants)
    assert (stopped / "head.safetensors").read_bytes() == (whole / "head.safetensors").read_bytes()
    losses = [
        [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
        for out in (whole, stopped)
    ]
    assert len(losses[0]) == 40
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_localize_in_the_middle(interrupt_and_finish: Callable, many: Path, predictor: Path) -> None:
    instants = [lines("localizations.jsonl", 10)]
    whole, stopped = interrupt_and_finish("localize", predictor, many, instants=instants)
    assert sorted(file.name for file in stopped.iterdir()) == sorted(file.name for file in whole.iterdir())
    found = [
        sorted((out / "localizations.jsonl").read_text().splitlines(), key=lambda line: json.loads(line)["image"])
        for out in (whole, stopped)
    ]
    assert found[0] == found[1]
