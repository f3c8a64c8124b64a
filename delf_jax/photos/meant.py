"""Which of the photos in a store or an index a person means who types a name."""

import os
from collections.abc import Collection

from delf_jax.errors import DelfError


def photo_meant(typed: str, names: Collection[str]) -> str:
    """The name among ``names`` that is as it was typed; or else that of the same file, relative to here or absolute.

    Args:
        typed: a name, a path or an address.
        names: of all photos; a set or the keys of a mapping.

    Raises:
        DelfError: there is none, or there are several; the message lists those that may be meant.

    >>> photo_meant("./a.jpg", {os.path.abspath("a.jpg"), "b.jpg"}) == os.path.abspath("a.jpg")
    True
    """
    if typed in names:
        return typed
    if "://" not in typed or typed.startswith("file://"):
        place = os.path.abspath(typed.removeprefix("file://"))
        found = [name for name in (place, os.path.relpath(place)) if name in names]
        if len(found) == 1:
            return found[0]
        if found:
            raise DelfError(f"{typed}: may be {' or '.join(found)}; give one of them, as it is written here")
    ending = f"/{os.path.basename(typed)}"
    alike = sorted(name for name in names if f"/{name}".endswith(ending))[:3]
    hint = f"did you mean {' or '.join(alike)}?" if alike else "give the path under which it was extracted"
    raise DelfError(f"{typed}: is not there; {hint}")
