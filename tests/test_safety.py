"""No code of this project runs what a file says."""

import ast
import configparser
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

SOURCES = sorted(
    path
    for package in ("delf_jax", "delf_cli", "retrieval", "localization", "benchmarks")
    for path in (ROOT / package).rglob("*.py")
)
# The one module that unpickles, by an allow-list.
RESTRICTED = {"delf_jax/files/pickles.py"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
EXTRACTING = {"extractall", "unpack_archive"}
# zipfile itself keeps every name inside the folder; tarfile does with filter="data".
ZIP_FILES = {("delf_jax/import_weights/public/archives.py", "wheel.extractall")}


def names(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """(dotted name, node) of everything that is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled_evaluated_or_given_to_a_shell(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        if name not in RESTRICTED:
            assert not FORBIDDEN_MODULES & {module.split(".")[0] for module in modules}, (name, node.lineno)
    for called, node in names(tree):
        assert called not in FORBIDDEN_CALLS | {"os.system", "os.popen", "subprocess.getoutput"}, (name, called)
        assert isinstance(node, ast.Call)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called.split(".")[-1] in EXTRACTING and (name, called) not in ZIP_FILES:
            assert given.get("filter") == "'data'", (name, called)
        assert given.get("shell", "False") == "False", (name, called)
        assert given.get("allow_pickle", "False") == "False", (name, called)
        if called in ("np.load", "numpy.load"):
            assert "allow_pickle" in given, (name, called)
        if called in ("torch.load",):
            assert given.get("weights_only") == "True", (name, called)
        assert called not in ("pickle.load", "pickle.loads", "yaml.load"), (name, called)


@pytest.mark.parametrize("name", sorted(RESTRICTED))
def test_unpicklers_know_a_few_names_alone(name: str) -> None:
    """Each class that unpickles has a find_class of its own, which refuses what it does not know."""
    tree = ast.parse((ROOT / name).read_text())
    classes = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and "pickle.Unpickler" in map(ast.unparse, node.bases)
    ]
    assert classes
    for node in classes:
        find = [entry for entry in node.body if isinstance(entry, ast.FunctionDef) and entry.name == "find_class"]
        assert len(find) == 1
        assert any(isinstance(entry, ast.Raise) for entry in ast.walk(find[0]))
        assert not any(called.startswith("super") for called, _ in names(find[0]))


# As packages write them. MPL-2.0 asks for the source of changed files of the package itself, and nothing of its users.
LICENCES = {
    "0BSD", "3-Clause BSD License", "AFL-2.1", "Apache License", "Apache Software License", "Apache-2.0", "BSD License",
    "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "MIT License", "MIT-CMU", "MPL-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)", "PSF-2.0", "Python Software Foundation License", "Zlib",
}  # fmt: skip


def licences(package: metadata.Distribution) -> list[str]:
    """All that a package is under, or may be taken under."""
    entries = package.metadata.get_all("Classifier") or []
    named = [entry.split(" :: ")[-1] for entry in entries if entry.startswith("License :: ")]
    free = (package.metadata.get("License") or "unknown").splitlines()[:1]
    stated = package.metadata.get("License-Expression")
    return [one for entry in ([stated] if stated else named or free) for one in re.split(r" (?:AND|OR) ", entry)]


def dependencies() -> dict[str, metadata.Distribution]:
    """Every package that an installation without extras brings, by name."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].splitlines()
    waiting = [Requirement(line) for line in lines if line and not line.startswith("#")]
    found: dict[str, metadata.Distribution] = {}
    for wanted in waiting:  # grows while it is walked
        extras = {"", *wanted.extras}
        if wanted.marker and not any(wanted.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        package = metadata.distribution(wanted.name)
        if package.name not in found:
            found[package.name] = package
            for line in package.requires or ():
                inner = Requirement(line)
                if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                    inner.marker = None
                    waiting.append(inner)
    return found


def test_every_dependency_may_be_used_and_passed_on() -> None:
    found = dependencies()
    assert {"jax", "numpy", "pillow", "orbax-checkpoint"} <= found.keys()
    assert {name: unknown for name, package in found.items() if (unknown := set(licences(package)) - LICENCES)} == {}
