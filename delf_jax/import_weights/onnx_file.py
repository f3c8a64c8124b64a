"""Reads the tensors of an ONNX file, without ONNX and without running its graph."""

from typing import Any

import numpy as np

from delf_jax.errors import ModelError, reason_of
from delf_jax.files.protobuf import message_class, parse

# Of ONNX's published schema (onnx.proto3), what leads to the tensors and to their names.
_MODEL = message_class(
    """
syntax = "proto3";
message TensorProto {
  repeated int64 dims = 1;
  int32 data_type = 2;
  string name = 8;
  bytes raw_data = 9;
  int32 data_location = 14;
}
message NodeProto {
  repeated string input = 1;
  string name = 3;
  string op_type = 4;
}
message GraphProto {
  repeated NodeProto node = 1;
  repeated TensorProto initializer = 5;
}
message ModelProto { GraphProto graph = 7; }
""",
    "ModelProto",
)
_FLOAT = 1


def read_onnx(path: str) -> dict[str, np.ndarray]:
    """The float32 tensors of an ONNX file, by PyTorch's names.

    Exporters rename and transpose the matrices of linear layers ("onnx::MatMul_1966"). The node that multiplies by such
    a matrix still tells its layer ("/encoder/layer.0/attention/key/MatMul"), so it comes back as
    "encoder.layer.0.attention.key.weight", [out, in]. Position embeddings that an exporter cut in two are joined again
    under "backbone.embeddings.position_embeddings".

    Raises:
        ModelError: the file is missing or damaged, or its tensors are in another file.
    """
    try:
        with open(path, "rb") as file:
            model = parse(_MODEL, file.read())
        if not model.HasField("graph"):
            raise ValueError("it has no graph")
        return _read_graph(model.graph)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({reason_of(error)})") from error
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except (ValueError, KeyError, OverflowError) as error:
        raise ModelError(f"{path}: damaged or not an ONNX file ({type(error).__name__}: {error})") from error


def _read_graph(graph: Any) -> dict[str, np.ndarray]:
    tensors = {tensor.name: _array(tensor) for tensor in graph.initializer}
    positions: dict[str, dict[str, np.ndarray]] = {}
    for node in graph.node:
        unnamed = [name for name in node.input if name.startswith("onnx::") and name in tensors]
        scope = ".".join(node.name.split("/")[1:-1])
        if node.op_type == "MatMul" and unnamed:
            tensors[f"{scope}.weight"] = tensors.pop(unnamed[0]).T
        elif node.op_type in ("Concat", "Reshape") and unnamed and scope.endswith("embeddings"):
            # The class token's row is concatenated to the patches' grid, which is reshaped to be resampled.
            positions.setdefault(scope, {})[node.op_type] = tensors.pop(unnamed[0])
    for scope, parts in positions.items():
        tensors[f"{scope}.position_embeddings"] = np.concatenate([parts[kind] for kind in sorted(parts)], axis=1)
    return tensors


def _array(tensor: Any) -> np.ndarray:
    if tensor.data_location:
        raise ModelError(f"{tensor.name} is in another file; export the model with its tensors inside")
    if tensor.data_type != _FLOAT or not tensor.raw_data:
        # Constants of other types are not weights.
        return np.zeros(0, np.float32)
    return np.frombuffer(tensor.raw_data, "<f4").reshape(tuple(tensor.dims))
