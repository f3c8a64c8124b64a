"""What the documentation says can be done: its commands parse, its Python names exist, its pages build."""

import ast
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from delf_cli import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def _commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for block in _blocks(page, "(?:|sh|bash|console)") if page.exists() else []:
            for line in block.replace("\\\n", " ").splitlines():
                found = re.match(r"(?:\$ )?(delf-jax .*)", line)
                if found:
                    yield page.name, found[1]


@pytest.mark.parametrize(("page", "line"), sorted(set(_commands())))
def test_commands_parse(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    for sign in ("|", ">", "&", "2>", "&&"):
        words = words[: words.index(sign)] if sign in words else words
    assert main._parse(words[1:]) is not None


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
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                ("delf_jax", "retrieval", "local")
            ):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, name.name) for name in node.names)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                assert hasattr(modules[node.value.id], node.attr), f"{node.value.id}.{node.attr}"


def test_files_that_the_readme_links_to_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


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
