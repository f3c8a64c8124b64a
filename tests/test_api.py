"""The public surface keeps the project's promises: documented, annotated, options by keyword."""

import dataclasses
import importlib
import inspect
import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import delf_jax
import localization
import retrieval

PACKAGES = (delf_jax, retrieval, localization)
ROOT = Path(__file__).resolve().parent.parent


def public_modules() -> list[types.ModuleType]:
    """The modules that a package exports, and those that the reference documents."""
    exported = [getattr(package, name) for package in PACKAGES for name in package.__all__]
    modules = {value.__name__: value for value in exported if inspect.ismodule(value)}
    for page in (ROOT / "docs" / "api").glob("*.md"):
        for name in re.findall(r"^::: ([\w.]+)$", page.read_text(), flags=re.MULTILINE):
            if name.rpartition(".")[2].islower() and not callable(_resolved(name)):
                modules[name] = importlib.import_module(name)
    return list(modules.values())


def _resolved(name: str) -> Any:
    """What a dotted name stands for: a module, or something in one."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)


def names_of(module: types.ModuleType) -> list[str]:
    """What a module offers: its ``__all__``, or the functions and classes that it defines."""
    defined = (n for n, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__)
    return list(getattr(module, "__all__", None) or (name for name in defined if not name.startswith("_")))


def public_names() -> Iterator[tuple[str, Any]]:
    """Everything that the packages export, and that their public modules offer."""
    for package in PACKAGES:
        for name in package.__all__:
            yield f"{package.__name__}.{name}", getattr(package, name)
    for module in public_modules():
        for name in names_of(module):
            yield f"{module.__name__}.{name}", getattr(module, name)


def public_callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Exported functions, and the public methods and written constructors of exported classes."""
    for name, value in public_names():
        if inspect.isfunction(value) or hasattr(value, "__wrapped__"):
            yield name, value
        elif inspect.isclass(value):
            for key, member in vars(value).items():
                function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
                written = key == "__init__" and not (dataclasses.is_dataclass(value) or is_protocol(value))
                if inspect.isfunction(function) and (written or not key.startswith("_")):
                    yield f"{name}.{key}", function


def is_protocol(value: type) -> bool:
    """Whether a class is an interface, whose constructor Python makes."""
    return bool(getattr(value, "_is_protocol", False))


def is_documentable(value: Any) -> bool:
    return (
        inspect.isclass(value)
        or inspect.ismodule(value)
        or (callable(value) and not isinstance(value, types.GenericAlias))
    )


NAMES = [pytest.param(value, id=name) for name, value in public_names() if is_documentable(value)]
CALLABLES = [pytest.param(function, id=name) for name, function in public_callables()]


def test_every_package_writes_out_its_surface() -> None:
    for package in PACKAGES:
        assert package.__all__, package.__name__
        assert len(set(package.__all__)) == len(package.__all__), package.__name__
        assert (package.__doc__ or "").strip(), package.__name__
        assert set(package.__all__) <= set(dir(package)), package.__name__


@pytest.mark.parametrize("module", public_modules(), ids=lambda module: module.__name__)
def test_every_public_module_offers_something(module: types.ModuleType) -> None:
    assert names_of(module)


@pytest.mark.parametrize("value", NAMES)
def test_is_documented(value: Any) -> None:
    text = (getattr(value, "__doc__", None) or "").strip()
    # A dataclass or NamedTuple without a docstring gets its signature as one.
    assert text
    assert not text.startswith(f"{value.__name__}(")


@pytest.mark.parametrize("function", CALLABLES)
def test_is_documented_annotated_and_takes_options_by_keyword(function: Callable[..., Any]) -> None:
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    if function.__name__ != "__init__":
        assert (function.__doc__ or "").strip(), "no docstring"
        assert signature.return_annotation is not inspect.Signature.empty, "the result is not annotated"
    missing = [p.name for p in parameters if p.annotation is inspect.Parameter.empty]
    assert not missing, f"not annotated: {missing}"
    positional = [p for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    options = [p.name for p in positional[2:] if p.default is not inspect.Parameter.empty]
    assert not options, f"options after the first two arguments are for keywords only: {options}"
    assert len(positional) <= 5, f"too many positional arguments: {[p.name for p in positional]}"
    assert len(parameters) <= 9, f"records instead of so many arguments: {[p.name for p in parameters]}"
