"""Pickles of NumPy arrays as every protocol writes them, and pickles that want more than arrays."""

import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delf_jax.files import pickles
from delf_jax.files.pickles import UnreadablePickle, read_numpy_pickle

_NUMBERS = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
ARRAYS = {
    "numbers": _NUMBERS,
    "booleans": _NUMBERS > 5,
    "half precision": _NUMBERS.astype(np.float16),
    "big-endian": _NUMBERS.astype(">f8"),
    "in columns": np.asfortranarray(_NUMBERS),
    "with transposed axes": _NUMBERS.transpose(1, 0, 2),
    "with gaps": _NUMBERS[:, ::2],
    "without axes": np.array(1.5),
    "text": np.array([["a", "bcd"], ["é", ""]]),
    "bytes": np.array([b"ab", b"c"]),
    "empty": np.zeros(0, np.float32),
    "empty rows": np.zeros((0, 4), np.int64),
    "empty text": np.array([], "U3"),
    "objects": np.array([["a", 1], [2.5, b"c"], [True, "é"]], object).T,
    "a long row": np.arange(1000, dtype=np.float64),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol(protocol: int, tmp_path: Path) -> None:
    content: dict[str, Any] = {name: [(array, 7)] for name, array in ARRAYS.items()}
    content["numbers of NumPy"] = (np.float32(1.5), np.int64(-3), np.bool_(True), np.str_("one"))
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    found = read_numpy_pickle(tmp_path / "a.pkl")
    assert found.pop("numbers of NumPy") == (1.5, -3, True, "one")
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        [(back, seven)] = found[name]
        assert isinstance(back, np.ndarray)
        assert (back.shape, back.dtype.kind, seven) == (array.shape, array.dtype.kind, 7), name
        np.testing.assert_array_equal(back, array, err_msg=name)


def test_python_2_wrote_numbers_and_text_so(tmp_path: Path) -> None:
    """A pickle as Python 2 and its NumPy wrote it, byte by byte."""
    kind = b"cnumpy\ndtype\n(S'%s'\nI0\nI1\ntR"
    little = b"(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\nt" + kind % b"i8"
    state = little + rb"I00" + b"\n" + rb"S'\x05\x00\x00\x00\x00\x00\x00\x00\xff\x00\x00\x00\x00\x00\x00\x00'" + b"\ntb"
    number = b"cnumpy.core.multiarray\nscalar\n(" + kind % b"f8" + little
    value = rb"S'\x00\x00\x00\x00\x00\x00\xf8?'" + b"\ntR"
    text = b"(dS'easy'\n" + array + state + b"sS'x'\n" + number + value + b"s."
    (tmp_path / "old.pkl").write_bytes(text)
    found = read_numpy_pickle(tmp_path / "old.pkl")
    np.testing.assert_array_equal(found["easy"], [5, 255])
    assert found["x"] == 1.5


class _Call:
    """Unpickles by calling something."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (_Call(os.getcwd), r"holds a (posix|nt)\.getcwd; only arrays are read"),
        (_Call(np.frombuffer, b"1234"), r"holds a numpy\.frombuffer; only arrays"),
        (_Call(np.ndarray, (1 << 40,)), "damaged or not a pickle of arrays"),
        (_Call(bytes, 1 << 40), r"damaged or not a pickle of arrays|holds a builtins\.bytes"),
        (np.array([{}], object), "an array of objects that are not numbers or text"),
        (np.zeros(2, [("a", "O")]), "an array of type V8"),
        (np.zeros(2, "M8[s]"), "an array of type M8"),
        (np.ma.masked_array([1]), r"holds a numpy\.ma"),
    ],
)
def test_anything_else_is_refused_and_not_called(content: Any, reason: str, tmp_path: Path) -> None:
    for protocol in (0, 2, 5):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps([content], protocol))
        with pytest.raises(UnreadablePickle, match=reason):
            read_numpy_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize("name", ["_codecs\nencode", "numpy\ndtype", "numpy.core.multiarray\n_reconstruct"])
def test_a_pickle_cannot_change_what_it_may_name(name: str, tmp_path: Path) -> None:
    """Sets attributes of the allowed thing itself, as if it were an object that it made."""
    before = {key: dict(vars(value)) for key, value in vars(pickles).items() if callable(value)}
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02c" + name.encode() + b"\nN}X\x04\0\0\0evilK\x01s\x86b.")
    with contextlib.suppress(UnreadablePickle):
        read_numpy_pickle(tmp_path / "a.pkl")
    assert {key: dict(vars(value)) for key, value in vars(pickles).items() if callable(value)} == before


def test_a_shape_that_the_bytes_do_not_have_is_refused(tmp_path: Path) -> None:
    array = pickle.dumps(np.arange(4, dtype=np.uint8), 2)
    for shape in (b"K\x05\x85", b"J\xfe\xff\xff\xffJ\xfe\xff\xff\xff\x86", b"\x8a\x05\0\0\0\0\x01\x85"):
        assert b"K\x04\x85" in array
        (tmp_path / "a.pkl").write_bytes(array.replace(b"K\x04\x85", shape))
        with pytest.raises(UnreadablePickle, match="ValueError"):
            read_numpy_pickle(tmp_path / "a.pkl")


@pytest.mark.parametrize("before", [b"}", rb"S'\xff'" + b"\n", b"X\x80\0\0\0" + bytes(128)])
def test_a_memo_beyond_the_pickle_is_refused_before_memory_is_taken(before: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(before + b"r\xff\xff\xff\x7f.")
    with pytest.raises(UnreadablePickle, match="beyond what it holds"):
        read_numpy_pickle(tmp_path / "a.pkl")


def test_containers_without_end_and_missing_files_are_refused(tmp_path: Path) -> None:
    itself: list[Any] = []
    itself.append(itself)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(itself))
    with pytest.raises(UnreadablePickle, match="it holds itself"):
        read_numpy_pickle(tmp_path / "a.pkl")
    with pytest.raises(UnreadablePickle, match="cannot be read"):
        read_numpy_pickle(tmp_path / "nowhere")
