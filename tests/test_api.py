"""The public surface keeps the project's promises: documented, annotated, options by keyword."""

import dataclasses
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import delf_jax
import localization
import retrieval

PACKAGES = (delf_jax, retrieval, localization)


def public_names() -> Iterator[tuple[str, Any]]:
    """Every exported name, and what it stands for, one level into exported modules."""
    for package in PACKAGES:
        for name in package.__all__:
            value = getattr(package, name)
            yield f"{package.__name__}.{name}", value
            for inner in getattr(value, "__all__", ()) if inspect.ismodule(value) else ():
                yield f"{package.__name__}.{name}.{inner}", getattr(value, inner)


def public_callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Exported functions, and the public methods and written constructors of exported classes."""
    for name, value in public_names():
        if inspect.isfunction(value) or hasattr(value, "__wrapped__"):
            yield name, value
        elif inspect.isclass(value):
            for key, member in vars(value).items():
                function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
                generated = dataclasses.is_dataclass(value) and key == "__init__"
                if inspect.isfunction(function) and not generated and (key == "__init__" or not key.startswith("_")):
                    yield f"{name}.{key}", function


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
