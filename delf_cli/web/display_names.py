"""Names of photos for the browser: they tell photos apart and hide the server's folders."""

import os
from collections.abc import Sequence


def display_names(names: Sequence[str]) -> dict[str, str]:
    """Each name without the folders that all names share, or its last part alone if the rest is still an absolute path.

    >>> display_names(["/home/me/trip/a/1.jpg", "/home/me/trip/b/1.jpg"])
    {'/home/me/trip/a/1.jpg': 'a/1.jpg', '/home/me/trip/b/1.jpg': 'b/1.jpg'}
    >>> display_names(["/home/me/1.jpg", "s3://bucket/2.jpg"])
    {'/home/me/1.jpg': '1.jpg', 's3://bucket/2.jpg': '2.jpg'}
    """
    parts = [name.replace(os.sep, "/").split("/") for name in names]
    common = 0
    for level in zip(*(folders[:-1] for folders in parts)):
        if len(set(level)) > 1:
            break
        common += 1
    return {name: _without_place(path[common:]) for name, path in zip(names, parts)}


def _without_place(path: list[str]) -> str:
    is_absolute = path[0] in ("", "..", "~") or any(":" in part for part in path[:-1])
    return path[-1] if is_absolute else "/".join(path)
