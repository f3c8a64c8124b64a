"""The exit codes of the command, and the code and message for each kind of error.

0 done, 1 finished but some inputs failed, 2 nothing could be done, 130 interrupted.
"""

import errno
import os
from typing import NamedTuple

from delf_jax.errors import DelfError, reason_of

DONE, SOME_FAILED, NOTHING_DONE, INTERRUPTED = 0, 1, 2, 130


class Failure(NamedTuple):
    """How the command ends after an error.

    Attributes:
        code: the exit code.
        message: one line for the user, which says what to do.
        is_bug: whether the error is a mistake in delf-jax, so that its traceback is worth reading.
    """

    code: int
    message: str
    is_bug: bool = False


def failure_of(error: BaseException) -> Failure:
    """The exit code and the message for an error that ended the command."""
    if isinstance(error, KeyboardInterrupt):
        message = (
            "interrupted; run extract, train, descriptors, localize or group again and it goes on from what is done"
        )
        return Failure(INTERRUPTED, message)
    if isinstance(error, DelfError):
        return Failure(NOTHING_DONE, str(error))
    if isinstance(error, OSError):
        return Failure(NOTHING_DONE, _os_message(error))
    if isinstance(error, MemoryError):
        return Failure(NOTHING_DONE, "out of memory: use a smaller --max-side, --max-features or --batch-size")
    if "RESOURCE_EXHAUSTED" in str(error):
        message = "out of device memory: use a smaller --batch-size or --max-side, or fewer --scales"
        return Failure(NOTHING_DONE, message)
    message = f"this is a mistake in delf-jax, please report it: {type(error).__name__}: {error}"
    return Failure(NOTHING_DONE, message, is_bug=True)


def _os_message(error: OSError) -> str:
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}the disk is full; free some space or choose another --out, then run the same command again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{where}{reason_of(error)}; change its permissions or choose another place"
    return f"{where}{reason_of(error)}"
