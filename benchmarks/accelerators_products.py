"""The arithmetic of a traced program: its matrix products and convolutions, and how fast a chip could be at best."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from jax.extend.core import ClosedJaxpr, Jaxpr

from benchmarks.accelerators_targets import Target

_PRODUCTS = ("dot_general", "conv_general_dilated")


class Product(NamedTuple):
    """One matrix product or convolution.

    Attributes:
        times: how often it runs.
        flop: of one run; a multiplication and an addition are two.
        bytes: its operands read and its result written once.
        kind: which of the target's rates holds for it, such as ``products``.
    """

    times: int
    flop: float
    bytes: float
    kind: str


@dataclasses.dataclass(frozen=True)
class Bound:
    """The least seconds of one run, if nothing but products took time.

    Attributes:
        flop: of all products.
        arithmetic_s: products one after the other, each at the full rate of its precision.
        bandwidth_s: operands and results of every product moved once, and everything else free.
    """

    flop: float
    arithmetic_s: float
    bandwidth_s: float

    @property
    def seconds(self) -> float:
        """The roofline: the slower of the two."""
        return max(self.arithmetic_s, self.bandwidth_s)


def bound(jaxpr: ClosedJaxpr, target: Target) -> Bound:
    """The roofline of a program on one chip; inputs and outputs of the program count too if they are more."""
    found = list(products(jaxpr.jaxpr, target.platform))
    moved = sum(each.times * each.bytes for each in found)
    ends = sum(_bytes(each.aval) for each in (*jaxpr.jaxpr.invars, *jaxpr.jaxpr.outvars))
    return Bound(
        flop=sum(each.times * each.flop for each in found),
        arithmetic_s=sum(each.times * each.flop / getattr(target, each.kind) for each in found),
        bandwidth_s=max(moved, ends) / target.bandwidth,
    )


def products(jaxpr: Jaxpr, platform: str, times: int = 1) -> Iterator[Product]:
    """All products of a program as ``platform`` runs it.

    Of a choice the branch with the most arithmetic counts; a loop whose length is not known counts once.
    """
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name in _PRODUCTS:
            yield _product(equation, times)
        elif name == "cond":
            branches = params["branches"]
            chosen = _of_platform(params.get("branches_platforms"), platform)
            candidates = [list(products(each.jaxpr, platform, times)) for each in branches]
            yield from candidates[chosen] if chosen is not None else max(candidates, key=_flop)
        else:
            inside = times * (params["length"] if name == "scan" else 1)
            for value in params.values():
                for inner in value if isinstance(value, tuple) else (value,):
                    if isinstance(inner, ClosedJaxpr):
                        yield from products(inner.jaxpr, platform, inside)
                    elif isinstance(inner, Jaxpr):
                        yield from products(inner, platform, inside)


def _of_platform(platforms: Any, platform: str) -> int | None:
    """Which branch of ``lax.platform_dependent`` a platform takes; None stands for all other platforms."""
    if platforms is None:
        return None
    named = [place for place, names in enumerate(platforms) if names is not None and platform in names]
    return named[0] if named else platforms.index(None)


def _flop(found: list[Product]) -> float:
    return sum(each.times * each.flop for each in found)


def _product(equation: Any, times: int) -> Product:
    left, right = (each.aval for each in equation.invars)
    (result,) = (each.aval for each in equation.outvars)
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        terms = math.prod(left.shape[axis] for axis in contracted)
    else:
        outputs = right.shape[equation.params["dimension_numbers"].rhs_spec[0]]
        terms = math.prod(right.shape) // outputs
    moved = sum(map(_bytes, (left, right, result)))
    return Product(
        times, 2.0 * math.prod(result.shape) * terms, moved, _kind(left, right, equation.params["precision"])
    )


def _kind(left: Any, right: Any, precision: Any) -> str:
    if left.dtype.itemsize <= 2 and right.dtype.itemsize <= 2:
        return "products"
    # One precision or one an operand: lax.Precision, or an algorithm such as BF16_BF16_F32_X3.
    named = str(precision)
    if any(exact in named for exact in ("HIGHEST", "X6", "F32_F32_F32")):
        return "float32_products"
    return "high_products" if any(high in named for high in ("HIGH", "X3")) else "default_products"


def _bytes(aval: Any) -> float:
    # The type of a random key has no size.
    return float(math.prod(aval.shape) * getattr(aval.dtype, "itemsize", 0))
