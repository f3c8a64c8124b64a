"""What happens in another thread, which is as foreign to a lease as another process."""

import threading
from collections.abc import Callable

from delf_jax.errors import DelfError


def errors_elsewhere(act: Callable[[], object]) -> list[DelfError]:
    """The error of a function in another thread; none if there is no error."""
    errors: list[DelfError] = []

    def run() -> None:
        try:
            act()
        except DelfError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return errors
