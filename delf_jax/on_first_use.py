"""Packages whose parts are imported on first use (PEP 562): JAX and the libraries of an index take long to import."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def imported_on_first_use(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package.

    Args:
        package: name of the package.
        homes: the module in the package that each name comes from; a module is its own home.
    """

    def attribute(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = importlib.import_module(f"{package}.{homes[name]}")
        return home if home.__name__.endswith(f".{name}") else getattr(home, name)

    return attribute
