"""What the kernels of a compiled program cost: the bytes that they touch, or the compiler's cycles."""

import dataclasses
import math
import re

from benchmarks.accelerators_hlo import Computation, Instruction, Program, Run

_TILED = re.compile(r"\{([\d,]+):T\(([\d,]+)\)")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\](\{[^{}]*\})?")
# They read of their first operand only what they give.
_SLICES = frozenset({"slice", "dynamic-slice", "gather"})


@dataclasses.dataclass(frozen=True)
class Operation:
    """Kernels alike: what they are, where in the source they come from, how many run, and what all of them cost."""

    what: str
    stage: str
    count: int
    cost: float


def operations(program: Program) -> list[Operation]:
    """All kernels by cost, the dearest first: cycles if the compiler estimates them, and otherwise bytes."""
    in_cycles = program.cycles > 0
    alike: dict[tuple[str, str], tuple[int, float]] = {}
    for run in program.runs:
        cost = run.instruction.cycles if in_cycles else touched(program, run)
        if cost:
            key = f"{run.instruction.opcode} {_first_array(run.instruction.shape)}", program.stage(run.instruction)
            count, total = alike.get(key, (0, 0.0))
            alike[key] = count + run.times, total + run.times * cost
    return sorted((Operation(*key, *value) for key, value in alike.items()), key=lambda operation: -operation.cost)


def stages(found: list[Operation]) -> dict[str, float]:
    """Share of the cost of each stage, the largest first."""
    total = sum(operation.cost for operation in found) or 1.0
    shares: dict[str, float] = {}
    for operation in found:
        shares[operation.stage] = shares.get(operation.stage, 0.0) + operation.cost / total
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def touched_bytes(program: Program) -> int:
    """What one run reads and writes in the chip's main memory: operands and results of every kernel."""
    return sum(run.times * touched(program, run) for run in program.runs)


def touched(program: Program, run: Run) -> int:
    """Bytes of one kernel, or of one copy in the background, in main memory.

    An operand that is only sliced counts as much as is taken of it, and one that is updated in place the update.
    """
    instruction, instructions = run.instruction, run.computation.instructions
    if instruction.opcode in ("copy-start", "slice-start"):
        # The result names both sides and a semaphore.
        sides = [array for array in _ARRAY.findall(instruction.shape) if array[1]]
        return min(_array_bytes(*side) for side in sides) * sum(_in_main(layout) for _, _, layout in sides)
    if not instruction.is_kernel:
        return 0
    read = 0
    for operand in {name: instructions[name] for name in instruction.operands if name in instructions}.values():
        size = shape_bytes(operand.shape)
        read += min(size, _read_by(program, instruction, operand.name, size))
    written = shape_bytes(instruction.shape)
    return read + min(written, _written(program, run.computation, instruction))


def _read_by(program: Program, user: Instruction, name: str, size: int) -> int:
    """How much of an operand of ``size`` bytes one instruction reads."""
    if user.opcode in _SLICES and user.operands[0] == name:
        return _bytes_anywhere(user.shape) if name not in user.operands[1:] else size
    if user.opcode == "dynamic-update-slice" and user.operands[0] == name:
        return 0
    if user.opcode == "fusion":
        (inner,) = (program.computations[called] for called in user.computations("calls"))
        places = {str(place) for place, operand in enumerate(user.operands) if operand == name}
        parameters = [
            each.name for each in inner.instructions.values() if each.opcode == "parameter" and each.literal in places
        ]
        return sum(_read_in(program, inner, parameter, size) for parameter in parameters)
    return size


def _read_in(program: Program, computation: Computation, name: str, size: int) -> int:
    """How much of a value of ``size`` bytes all of a computation reads."""
    total = 0
    for user in computation.instructions.values():
        if name in user.operands:
            view = user.opcode == "bitcast"
            total += _read_in(program, computation, user.name, size) if view else _read_by(program, user, name, size)
    return total if name != computation.root else size


def _written(program: Program, computation: Computation, result: Instruction) -> int:
    """How much of its result an instruction writes."""
    instructions = computation.instructions
    if result.opcode == "dynamic-update-slice":
        return _bytes_anywhere(instructions[result.operands[1]].shape)
    if result.opcode == "fusion":
        (inner,) = (program.computations[called] for called in result.computations("calls"))
        return _written(program, inner, inner.instructions[inner.root])
    if result.opcode in ("bitcast", "tuple"):
        return sum(_written(program, computation, instructions[name]) for name in result.operands)
    return _bytes_anywhere(result.shape)


def shape_bytes(shape: str) -> int:
    """Bytes that the arrays of a shape fill in main memory, with the padding of a TPU's tiles.

    >>> shape_bytes("(bf16[2,3]{1,0}, f32[]{:T(128)S(1)}, pred[8]{0})")
    20
    >>> shape_bytes("bf16[8,480,640,3]{0,3,2,1:T(4,128)(2,1)}") == 128 * 480 * 640 * 4 * 2
    True
    """
    return sum(_array_bytes(kind, sides, layout) for kind, sides, layout in _ARRAY.findall(shape) if _in_main(layout))


def _bytes_anywhere(shape: str) -> int:
    """The same, wherever the arrays lie: inside a fusion, nothing says that."""
    return sum(_array_bytes(*array) for array in _ARRAY.findall(shape))


def _in_main(layout: str) -> bool:
    # S(1) is the memory inside a TPU's core.
    return "S(1)" not in layout


def _array_bytes(kind: str, sides: str, layout: str) -> int:
    lengths = [int(side) for side in sides.split(",") if side]
    if found := _TILED.match(layout):
        # The fastest axes come first in the order, and last in the tile.
        order, tile = ([int(number) for number in part.split(",")] for part in found.groups())
        for axis, step in zip(order, reversed(tile)):
            lengths[axis] = -(-lengths[axis] // step) * step
    bits = 8 if kind == "pred" else int(re.findall(r"\d+", kind)[0])
    return -(-bits * math.prod(lengths) // 8)


def _first_array(shape: str) -> str:
    found = _ARRAY.search(shape)
    return f"{found[1]}[{found[2]}]" if found else shape
