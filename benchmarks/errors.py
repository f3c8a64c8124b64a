"""Errors that stop one row of a benchmark; the other rows are still measured."""

from delf_jax.errors import DelfError


class Unavailable(DelfError):
    """A row needs something that is missing; the message says what."""


class PeerMissing(Unavailable):
    """The package or the weights of a peer are missing."""
