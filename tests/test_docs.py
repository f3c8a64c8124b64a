"""What the documentation says can be done: its code runs, its commands parse, its links exist, its pages build."""

import ast
import configparser
import fnmatch
import importlib
import importlib.metadata
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from PIL import Image

from delf_cli import demo, main
from delf_cli.demo import PHOTOS
from tests.conftest import ROOT
from tests.delf_cli.conftest import SMALL

README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _blocks(page: Path, *languages: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [block for language, block in fenced if language in languages]


def _lines(page: Path, program: str) -> list[list[str]]:
    """The words of all command lines of a page that call a program, without comments, pipes and redirections."""
    found = []
    for block in _blocks(page, "", "sh", "bash", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            if re.match(rf"(?:\$ )?{program} ", line):
                words = shlex.split(line.removeprefix("$ "), comments=True)
                for sign in ("|", ">", "&", "2>", "&&"):
                    words = words[: words.index(sign)] if sign in words else words
                found.append(words)
    return found


def _commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for words in _lines(page, "delf-jax"):
            yield page.name, shlex.join(words[1:])


def _setup() -> configparser.ConfigParser:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return setup


@pytest.mark.parametrize(("page", "line"), sorted(set(_commands())))
def test_commands_parse(page: str, line: str) -> None:
    assert main._parse(shlex.split(line)) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_in_python_examples_exist(page: Path) -> None:
    for block in _blocks(page, "python"):
        tree = ast.parse(block)
        modules = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for name in node.names:
                    if name.name.partition(".")[0] in ("delf_jax", "retrieval", "localization"):
                        modules[name.asname or name.name] = importlib.import_module(name.name)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("delf_", "retrieval", "local")):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, name.name) for name in node.names)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                assert hasattr(modules[node.value.id], node.attr), f"{node.value.id}.{node.attr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_pages_link_to_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_files_that_contributors_are_sent_to_exist() -> None:
    paths = re.findall(r"`([\w.-]+/[\w./-]*)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert [path for path in paths if "NAME" not in path and path != ".cache/jax" and not (ROOT / path).exists()] == []
    house = _blocks(ROOT / "CONTRIBUTING.md", "")[0]
    folder = ROOT
    for indent, names in re.findall(r"^( *)((?:\w+/ +)+)", house, flags=re.MULTILINE):
        for name in names.split():
            assert ((folder if indent else ROOT) / name).is_dir(), name
        folder = folder if indent else ROOT / names.split()[0]


def test_the_readme_is_short() -> None:
    text = README.read_text()
    assert len(text.split()) <= 1200
    assert len(re.findall(r"^\|[-|: ]+\|$", text, flags=re.MULTILINE)) == 1
    assert len(re.findall(r"^\|", text, flags=re.MULTILINE)) <= 2 + 6


def test_the_commands_of_the_readme_run(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name in ("graf1", "leuvenA", "box"):
        shutil.copy(PHOTOS / f"{name}.jpg", "photos")
    shutil.copy(PHOTOS / "graf3.jpg", "query.jpg")
    shutil.copy(PHOTOS / "graf1.jpg", "a.jpg")
    shutil.copy(PHOTOS / "graf3.jpg", "b.jpg")
    # `index` and `search` take these from the store and from the index.
    small = ["--model", str(tiny_model), *SMALL]
    lines = _lines(README, "delf-jax")
    assert [words[1] for words in lines] == ["extract", "index", "search", "match"]
    for words in lines:
        assert main.main(words[1:] + (small if words[1] in ("extract", "match") else [])) == 0
    assert list(Path("found").glob("*.jpg"))
    assert Path("pair.jpg").stat().st_size


@pytest.mark.slow
@pytest.mark.usefixtures("full_compilation", "few_canvases")
def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The photos that it names, and so many more that a foreground can be told; all of them fit into one canvas.
    for name in ("graf1", "graf3", "squirrel_cls", "chelsea", "coffee", "flower", "home"):
        shutil.copy(PHOTOS / f"{name}.jpg", tmp_path)
    with Image.open(PHOTOS / "camera.jpg") as photo:
        photo.crop((0, 50, 512, 450)).save(tmp_path / "camera.jpg")
    monkeypatch.setattr(demo, "PHOTOS", tmp_path)
    names: dict[str, Any] = {}
    for block in _blocks(README, "python"):
        exec(compile(block, README.name, "exec"), names)
    assert names["match"].accepted
    assert names["a"].descriptors.shape == (len(names["a"].keypoints), 128)
    assert names["index"].search(names["b"]).matches[0].image == "graf1"
    assert not names["index"].search(names["camera"], exclude=["camera"]).accepted
    assert names["found"].found
    assert len(names["found"].boxes)
    assert names["why"].excitatory
    assert names["why"].inhibitory


def test_make_and_pip_lines_name_what_there_is() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    setup = _setup()
    extras = set(setup["options.extras_require"])
    of_jax = set(importlib.metadata.metadata("jax").get_all("Provides-Extra"))
    wheel = f"{setup['metadata']['name'].replace('-', '_')}-{setup['metadata']['version']}-py3-none-any.whl"
    for page in PAGES:
        for words in _lines(page, "make"):
            assert set(words[1:]) <= set(targets), page.name
        for words in [*_lines(page, "pip"), *re.findall(r"`pip install ([^`]+)`", page.read_text())]:
            for word in words if isinstance(words, list) else shlex.split(words):
                assert set(_extras_of(word)) <= (of_jax if word.startswith("jax[") else extras), (page.name, word)
                assert not word.startswith("dist/") or word == f"dist/{wheel}"


def _extras_of(requirement: str) -> list[str]:
    found = re.search(r"\[(.*)\]", requirement)
    return found[1].split(",") if found else []


def test_the_wheel_holds_every_file_of_the_packages() -> None:
    setup = _setup()
    for package, patterns in setup["options.package_data"].items():
        for path in (ROOT / package).rglob("*.*"):
            name = path.relative_to(ROOT / package).as_posix()
            if path.is_file() and path.suffix not in (".py", ".pyc") and not name.startswith("results/"):
                assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns.split()) or name == "NOTES.md", path


@pytest.mark.slow
def test_the_wheel_of_the_readme_works_where_it_is_installed(tmp_path: Path) -> None:
    requirement = Requirement(tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"][0])
    installed = [found.version for found in importlib.metadata.distributions(name=requirement.name)]
    if not requirement.specifier.contains(next(iter(installed), "0")):
        pytest.skip(f"needs {requirement} in this environment: pip cannot fetch it without a network")
    # A build leaves files beside the sources, and takes those that an earlier build left.
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "elsewhere"
    unneeded = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "tests", "docs", "demo_out")
    shutil.copytree(ROOT, checkout, ignore=unneeded)
    build, install = (words for words in _lines(README, "pip") if "dist" in " ".join(words))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input"]
    for words in ([*build[1:], "--no-build-isolation"], [*install[1:], "--no-deps", "--target", str(elsewhere)]):
        done = subprocess.run([*pip, *words], cwd=checkout, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    code = """
from pathlib import Path
import delf_cli.demo, delf_jax, localization, retrieval
for package in (delf_cli, delf_jax, localization, retrieval):
    assert Path(package.__file__).is_relative_to(Path.cwd()), package.__file__
assert len(list(delf_cli.demo.PHOTOS.glob("*.jpg"))) == 22
assert delf_jax.load("delf-r50").head.attention is not None
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_citation_is_complete() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert citation["version"] == _setup()["metadata"]["version"]
    assert citation["license"] == _setup()["metadata"]["license_expression"]
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= set(reference)


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    assert "log10_nfa" in (tmp_path / "site" / "api" / "retrieval.html").read_text()
    assert (tmp_path / "site" / "results" / "throughput.json").exists()
