"""Reads JSON of files from elsewhere. Every mistake in a file raises ValueError."""

import json
from typing import Any


def loads(data: bytes | str) -> Any:
    """Like ``json.loads``, which raises RecursionError for thousands of nested brackets.

    >>> loads("[" * 100_000)
    Traceback (most recent call last):
    ValueError: it is nested too deeply
    """
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def loads_object(data: bytes | str) -> dict[str, Any]:
    """The same for a file that must hold a JSON object.

    >>> loads_object("[]")
    Traceback (most recent call last):
    ValueError: it holds no JSON object
    """
    value = loads(data)
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")
    return value
