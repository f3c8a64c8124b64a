"""The errors a user can mend, one class a kind of input.

Every message is one line that names the input and says what to do about it; the command prints it as it is.
"""

import re

# Names in files from elsewhere may hold anything, also what moves a terminal's cursor.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class DelfError(Exception):
    """Base of every error that this project raises on purpose.

    >>> str(DelfError("a.jpg\\n\\x1b[2J: is no photo"))
    'a.jpg [2J: is no photo'
    """

    def __str__(self) -> str:
        return _CONTROL.sub(" ", super().__str__())


class ImageError(DelfError):
    """A photo that cannot be used.

    Attributes:
        source: the path, address or description of the photo.
        reason: what is wrong with it and how to mend it, without the name.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        return type(self), (self.source, self.reason)


class ModelError(DelfError):
    """A model or head file that is missing, damaged, too new, or lacks what was asked of it."""


class StoreError(DelfError):
    """A feature store that is missing, damaged, in use by another writer, or made by another model."""


class SearchIndexError(DelfError):
    """A retrieval index that is missing, damaged, too new, or does not fit the query."""


class PredictorError(DelfError):
    """A foreground predictor that cannot be fitted, opened or applied."""


class TrainingDataError(DelfError):
    """Training photos that are missing or cannot be read, a faulty list of them, or a loader state of other photos."""


class ClusterError(DelfError):
    """A cluster of workers, or the other processes of a job, that cannot be reached, started or waited for."""


class FileFormatError(DelfError):
    """A file of another program's format that is missing, damaged, or cannot hold what it was given."""
