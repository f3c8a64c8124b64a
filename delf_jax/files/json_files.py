"""JSON of files that come from elsewhere: every way to be wrong is a ValueError."""

import json
from typing import Any


def loads(data: bytes | str) -> Any:
    """Like ``json.loads``, whose parser also raises RecursionError where brackets are nested thousands deep.

    >>> loads("[" * 100_000)
    Traceback (most recent call last):
    ValueError: it is nested too deeply
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def loads_object(data: bytes | str) -> dict[str, Any]:
    """The same for a file that has to hold an object.

    >>> loads_object("[]")
    Traceback (most recent call last):
    ValueError: it holds no JSON object
    """
    value = loads(data)
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")
    return value
