"""Names that a browser may see: enough to tell photos apart, nothing of the server's folders."""

import os
from collections.abc import Sequence


def shown_names(names: Sequence[str]) -> dict[str, str]:
    """Each name without the folders that all have in common, or its last part alone where it still tells a place.

    >>> shown_names(["/home/me/trip/a/1.jpg", "/home/me/trip/b/1.jpg"])
    {'/home/me/trip/a/1.jpg': 'a/1.jpg', '/home/me/trip/b/1.jpg': 'b/1.jpg'}
    >>> shown_names(["/home/me/1.jpg", "s3://bucket/2.jpg"])
    {'/home/me/1.jpg': '1.jpg', 's3://bucket/2.jpg': '2.jpg'}
    """
    parts = [name.replace(os.sep, "/").split("/") for name in names]
    common = 0
    for level in zip(*(folders[:-1] for folders in parts)):
        if len(set(level)) > 1:
            break
        common += 1
    return {name: _harmless(path[common:]) for name, path in zip(names, parts)}


def _harmless(path: list[str]) -> str:
    leads_elsewhere = path[0] in ("", "..", "~") or any(":" in part for part in path[:-1])
    return path[-1] if leads_elsewhere else "/".join(path)
