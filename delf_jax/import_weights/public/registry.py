"""The list of public weights: address, size, checksum, licence, and what each is good for."""

import dataclasses
import difflib
import functools
import tomllib
from importlib import resources
from typing import Any

from delf_jax.errors import ModelError
from delf_jax.import_weights.delf_config import DelfConfig


@dataclasses.dataclass(frozen=True)
class PublicWeights:
    """One published file.

    Attributes:
        name: in this project.
        file: the file's name.
        url: its address at the publisher; None if it can only be downloaded by hand.
        by_hand: how to do that, as a sentence or a command.
        sha256: of the file in hex, or its first digits; None if it was not published.
        bytes: its size; None if it is not known.
        licence: an SPDX name, or words.
        paper: what to cite.
        good_for: what it is good for.
        delf: settings of a DELF release; None for backbones.
    """

    name: str
    file: str
    url: str | None
    by_hand: str | None
    sha256: str | None
    bytes: int | None
    licence: str
    paper: str
    good_for: str
    delf: DelfConfig | None


@functools.cache
def registry() -> dict[str, PublicWeights]:
    """All known public weights by name, in the order of the documentation."""
    text = resources.files(__package__).joinpath("registry.toml").read_text(encoding="utf-8")
    return {name: _entry(name, values) for name, values in tomllib.loads(text).items()}


def find(name: str) -> PublicWeights:
    """The weights of this name.

    Raises:
        ModelError: there are no such weights; the error suggests the most similar name.
    """
    if name in registry():
        return registry()[name]
    near = difflib.get_close_matches(name, registry(), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ModelError(f"{name}: there are no such public weights; {hint}`delf-jax weights list` lists all")


def _entry(name: str, values: dict[str, Any]) -> PublicWeights:
    delf = values.get("delf")
    return PublicWeights(
        name=name,
        file=values.get("file") or values["url"].rpartition("/")[2],
        url=values.get("url"),
        by_hand=values.get("by_hand"),
        sha256=values.get("sha256"),
        bytes=values.get("bytes"),
        licence=values["licence"],
        paper=values["paper"],
        good_for=values["good_for"],
        delf=None if delf is None else DelfConfig(**(delf | {"scales": tuple(delf["scales"])})),
    )
