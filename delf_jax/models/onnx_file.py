"""Reads the tensors of an ONNX file field by field, without ONNX and without running its graph."""

from collections.abc import Iterator

import numpy as np

from delf_jax.errors import ModelError

# Field numbers of ONNX's published schema (onnx.proto).
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_NODE_INPUT, _NODE_NAME, _NODE_KIND = 1, 3, 4
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW, _TENSOR_LOCATION = 1, 2, 8, 9, 14
_FLOAT = 1


def read_onnx(path: str) -> dict[str, np.ndarray]:
    """The float32 tensors of an ONNX file, by PyTorch's names.

    Exporters rename the matrices of linear layers ("onnx::MatMul_1966") and turn them; the node that multiplies by one
    still says whose it is ("/encoder/layer.0/attention/key/MatMul" -> "encoder.layer.0.attention.key.weight"), and so
    it comes back as [out, in]. Position embeddings that an exporter cut in two are joined again under
    "backbone.embeddings.position_embeddings".

    Raises:
        ModelError: the file is missing, damaged, or keeps its tensors elsewhere.
    """
    try:
        with open(path, "rb") as file:
            content = memoryview(file.read())
        return _read_graph(next(_bytes(value) for number, value in _fields(content) if number == _MODEL_GRAPH))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except (ValueError, IndexError, KeyError, StopIteration) as error:
        raise ModelError(f"{path}: damaged or not an ONNX file ({type(error).__name__}: {error})") from error


def _read_graph(graph: memoryview) -> dict[str, np.ndarray]:
    parts = list(_fields(graph))
    tensors = dict(_tensor(_bytes(value)) for number, value in parts if number == _GRAPH_INITIALIZER)
    positions: dict[str, dict[str, np.ndarray]] = {}
    for number, value in parts:
        if number != _GRAPH_NODE:
            continue
        node = list(_fields(_bytes(value)))
        kind, name = (_text(node, field) for field in (_NODE_KIND, _NODE_NAME))
        inputs = [str(_bytes(value), "utf-8") for number, value in node if number == _NODE_INPUT]
        unnamed = [text for text in inputs if text.startswith("onnx::") and text in tensors]
        scope = ".".join(name.split("/")[1:-1])
        if kind == "MatMul" and unnamed:
            tensors[f"{scope}.weight"] = tensors.pop(unnamed[0]).T
        elif kind in ("Concat", "Reshape") and unnamed and scope.endswith("embeddings"):
            # The class token's row is concatenated to the patches' grid, which is reshaped to be resampled.
            positions.setdefault(scope, {})[kind] = tensors.pop(unnamed[0])
    for scope, cut in positions.items():
        tensors[f"{scope}.position_embeddings"] = np.concatenate([cut[kind] for kind in sorted(cut)], axis=1)
    return tensors


def _tensor(message: memoryview) -> tuple[str, np.ndarray]:
    fields = list(_fields(message))
    name = _text(fields, _TENSOR_NAME)
    if any(number == _TENSOR_LOCATION and value for number, value in fields):
        raise ModelError(f"{name} lies in another file; export the model with its tensors inside")
    shape: list[int] = []
    for number, value in fields:
        if number == _TENSOR_DIMS:
            # Repeated integers come one by one or packed in one field.
            shape += [value] if isinstance(value, int) else _packed(value)
    kinds = [value for number, value in fields if number == _TENSOR_TYPE]
    raw = [value for number, value in fields if number == _TENSOR_RAW]
    if kinds != [_FLOAT] or not raw:
        # Constants of other types are no weights.
        return name, np.zeros(0, np.float32)
    return name, np.frombuffer(_bytes(raw[0]), "<f4").reshape(shape)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, integer or bytes) of a protocol-buffers message, in its order."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        wire = key & 7
        if wire == 0:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        length, place = _varint(message, place) if wire == 2 else ({1: 8, 5: 4}[wire], place)
        if place + length > len(message):
            raise ValueError("a field reaches beyond the end of the file")
        yield key >> 3, message[place : place + length]
        place += length


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        byte = message[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
    raise ValueError("an integer of more than 64 bits")


def _packed(message: memoryview) -> list[int]:
    numbers, place = [], 0
    while place < len(message):
        number, place = _varint(message, place)
        numbers.append(number)
    return numbers


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("an integer where bytes are expected")
    return value


def _text(fields: list[tuple[int, int | memoryview]], wanted: int) -> str:
    return next((str(_bytes(value), "utf-8") for number, value in fields if number == wanted), "")
