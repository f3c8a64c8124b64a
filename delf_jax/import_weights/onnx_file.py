"""Reads the tensors of an ONNX file field by field, without ONNX and without running its graph."""

import numpy as np

from delf_jax.errors import ModelError
from delf_jax.interchange.protobuf_wire import Field, fields, integers

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
        return _read_graph(next(field.data for field in fields(content) if field.number == _MODEL_GRAPH))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except (ValueError, KeyError, StopIteration, OverflowError) as error:
        raise ModelError(f"{path}: damaged or not an ONNX file ({type(error).__name__}: {error})") from error


def _read_graph(graph: memoryview) -> dict[str, np.ndarray]:
    parts = list(fields(graph))
    tensors = dict(_tensor(part.data) for part in parts if part.number == _GRAPH_INITIALIZER)
    positions: dict[str, dict[str, np.ndarray]] = {}
    for part in parts:
        if part.number != _GRAPH_NODE:
            continue
        node = list(fields(part.data))
        kind, name = (_text(node, number) for number in (_NODE_KIND, _NODE_NAME))
        inputs = [field.text for field in node if field.number == _NODE_INPUT]
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
    parts = list(fields(message))
    name = _text(parts, _TENSOR_NAME)
    if any(part.number == _TENSOR_LOCATION and part.value for part in parts):
        raise ModelError(f"{name} lies in another file; export the model with its tensors inside")
    shape = [size for part in parts if part.number == _TENSOR_DIMS for size in integers(part)]
    kinds = [part.value for part in parts if part.number == _TENSOR_TYPE]
    raw = [part.data for part in parts if part.number == _TENSOR_RAW]
    if kinds != [_FLOAT] or not raw:
        # Constants of other types are no weights.
        return name, np.zeros(0, np.float32)
    return name, np.frombuffer(raw[0], "<f4").reshape(shape)


def _text(parts: list[Field], wanted: int) -> str:
    return next((part.text for part in parts if part.number == wanted), "")
