"""The errors that a user can fix, one class for each kind of input.

Every message is one line that names the input and says what to do; the command prints it as it is.
"""

import re

# Names from foreign files may contain anything, even sequences that move the cursor of a terminal.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def one_line(error: BaseException) -> str:
    """The text of an error in one line of at most 200 characters; the name of its class if it has no text.

    >>> one_line(ValueError("bad header:\\n  line 3"))
    'bad header: line 3'
    >>> one_line(KeyError("count"))
    'count is missing'
    """
    text = f"{error.args[0]} is missing" if isinstance(error, KeyError) and len(error.args) == 1 else str(error)
    return " ".join(text.split())[:200] or type(error).__name__


def reason_of(error: OSError) -> str:
    """What the system says of a file, without its name; libraries raise such errors with a text of their own.

    >>> reason_of(FileNotFoundError(2, "No such file or directory", "/a/b")), reason_of(OSError("not seekable"))
    ('No such file or directory', 'not seekable')
    """
    return error.strerror or one_line(error)


class DelfError(Exception):
    """Base class of every error that this project raises on purpose; its text is always one line.

    >>> str(DelfError("a.jpg\\n\\x1b[2J: is not a photo"))
    'a.jpg [2J: is not a photo'
    """

    def __str__(self) -> str:
        return _CONTROL.sub(" ", super().__str__())


class ImageError(DelfError):
    """A photo that cannot be used.

    Attributes:
        source: the path, address or description of the photo.
        reason: what is wrong with it and how to fix it, without the name.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        return type(self), (self.source, self.reason)


class ModelError(DelfError):
    """A model or head file that is missing, damaged, too new, or does not contain what is needed."""


class StoreError(DelfError):
    """A feature store that is missing, damaged, in use by another writer, or made by another model."""


class SearchIndexError(DelfError):
    """A retrieval index that is missing, damaged, too new, or does not fit the query."""


class PredictorError(DelfError):
    """A foreground predictor that cannot be fitted, opened or applied."""


class TrainingDataError(DelfError):
    """Training photos that are missing or unreadable, a faulty list of them, or a loader state of other photos."""


class ClusterError(DelfError):
    """Workers of a cluster, or other processes of a job, that cannot be reached or started, or do not answer."""


class FileFormatError(DelfError):
    """A file in another program's format that is missing or damaged, or cannot store what it was given."""
