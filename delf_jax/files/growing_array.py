"""A .npy file that grows, so that arrays larger than the memory can be written."""

from pathlib import Path

import numpy as np
from jaxtyping import Shaped


class GrowingArray:
    """A .npy file that rows are appended to."""

    def __init__(self, path: Path, dtype: type[np.generic]) -> None:
        self._file = path.open("wb")
        self._dtype = np.dtype(dtype)
        self._shape: tuple[int, ...] = (0,)

    def append(self, rows: Shaped[np.ndarray, "n *rest"]) -> None:
        """Writes rows; all have the shape of the first ones."""
        if self._shape == (0,):
            self._shape = (0, *rows.shape[1:])
            self._write_header()
        self._shape = (self._shape[0] + len(rows), *rows.shape[1:])
        self._file.write(np.ascontiguousarray(rows, self._dtype).data)

    def finish(self) -> None:
        """Writes the final number of rows into the header, which has room for any number, and closes the file."""
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def close(self) -> None:
        """Closes the file as it is."""
        self._file.close()

    def _write_header(self) -> None:
        header = np.lib.format.header_data_from_array_1_0(np.empty(0, self._dtype)) | {"shape": self._shape}
        np.lib.format.write_array_header_1_0(self._file, header)
