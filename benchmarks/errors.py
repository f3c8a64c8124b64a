"""What stops one row of a benchmark, while the others are measured."""

from delf_jax.errors import DelfError


class Unavailable(DelfError):
    """A row needs something that is not here, and says what."""


class PeerMissing(Unavailable):
    """A peer's package or weights are not here."""
