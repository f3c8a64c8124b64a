"""Small random vision transformers in the namings of their sources: the same on every machine."""

import numpy as np

WIDTH, HEADS, DEPTH, PATCH, GRID, REGISTERS = 32, 2, 2, 4, 6, 3
# Fewer and more patches than position embeddings on an axis, the very grid, and a part of a patch left over.
SIZES = ((12, 40), (24, 24), (24, 31))
SOURCES = ("dino", "dinov2", "dinov2_registers", "timm_registers", "hugging_face")


def vit_arrays(source: str) -> dict[str, np.ndarray]:
    """Arrays of a tiny network, as `source` names them; the numbers are the same wherever two sources share them."""
    draw = np.random.default_rng(11)

    def uniform(*shape: int, scale: float = 0.5, centre: float = 0.0) -> np.ndarray:
        return (centre + scale * (2 * draw.random(shape) - 1)).astype(np.float32)

    arrays = {
        "cls_token": uniform(1, 1, WIDTH),
        "pos_embed": uniform(1, GRID**2 + 1, WIDTH, scale=1.0),
        "patch_embed.proj.weight": uniform(WIDTH, 3, PATCH, PATCH, scale=0.3),
        "patch_embed.proj.bias": uniform(WIDTH),
    }
    for name in ("norm", *(f"blocks.{block}.norm{number}" for block in range(DEPTH) for number in (1, 2))):
        arrays |= {f"{name}.weight": uniform(WIDTH, centre=1.0), f"{name}.bias": uniform(WIDTH)}
    shapes = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    for block in range(DEPTH):
        for name, (outputs, inputs) in shapes.items():
            shape = (outputs * WIDTH, inputs * WIDTH)
            arrays[f"blocks.{block}.{name}.weight"] = uniform(*shape, scale=2 * shape[1] ** -0.5)
            arrays[f"blocks.{block}.{name}.bias"] = uniform(shape[0])
        scales = {f"blocks.{block}.ls{number}.gamma": uniform(WIDTH, centre=1.0) for number in (1, 2)}
        arrays |= {} if source == "dino" else scales
    registers = uniform(1, REGISTERS, WIDTH)
    if source == "dinov2_registers":
        arrays["register_tokens"] = registers
    if source == "timm_registers":
        arrays["reg_token"] = registers
        arrays["cls_token"] = arrays["cls_token"] + arrays["pos_embed"][:, :1]
        arrays["pos_embed"] = arrays["pos_embed"][:, 1:]
    return _hugging_face(arrays) if source == "hugging_face" else arrays


def _hugging_face(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    renamed: dict[str, np.ndarray] = {}
    changes = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "blocks.": "encoder.layer.",
        "attn.proj": "attention.output.dense",
        "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1",
    }
    for name, array in arrays.items():
        for old, new in changes.items():
            name = name.replace(old, new)
        name = f"layernorm{name[4:]}" if name.startswith("norm.") else name
        if ".attn.qkv." in name:
            for part, piece in zip(("query", "key", "value"), np.split(array, 3)):
                renamed[name.replace("attn.qkv", f"attention.attention.{part}")] = piece
        else:
            renamed[name] = array
    return renamed
