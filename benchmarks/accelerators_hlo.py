"""The text of a compiled program, ``Compiled.as_text()``, as instructions: what runs, how often, and from which source.

Whatever lies in a loop runs as often as the loop does, if the compiler knows that, and otherwise once.
"""

import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

# They launch nothing: names, constants, views, control, and the ends of what began elsewhere.
_FREE = re.compile(
    "parameter|constant|get-tuple-element|tuple|bitcast|after-all|partition-id|replica-id|opt-barrier|domain|"
    "while|conditional|call|async-.*|.*-start|.*-done"
)
_COLLECTIVE = re.compile("(all-(reduce|gather|to-all)|ragged-all-to-all|reduce-scatter|collective-.*?)(-start)?")
_PACKAGES = "delf_jax|retrieval|localization"
# Parts of an op_name that JAX adds by itself, beside those with signs; all others come from jax.named_scope.
_STRUCTURE = re.compile("shard_map|while|body|cond|closed_call|checkpoint")

_HEADER = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.-]+) = (.*)$")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Instruction(NamedTuple):
    """One line of a computation.

    Attributes:
        name: unique in its computation.
        shape: type, sizes and layout of the result.
        opcode: what it does.
        operands: names of its operands in the same computation.
        literal: the place of a parameter, or the value of a constant; empty for everything else.
        rest: what stands behind the operands.
    """

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    literal: str
    rest: str

    @property
    def is_kernel(self) -> bool:
        """Whether it is launched: a fusion, a library call, or an operation that stands alone."""
        return not _FREE.fullmatch(self.opcode)

    @property
    def is_collective(self) -> bool:
        """Whether it moves data between devices."""
        return bool(_COLLECTIVE.fullmatch(self.opcode)) and not self.opcode.endswith("-done")

    @property
    def cycles(self) -> int:
        """The compiler's estimate; 0 where it makes none."""
        found = _CYCLES.search(self.rest)
        return int(found[1]) if found else 0

    def computations(self, attribute: str) -> list[str]:
        """The names in an attribute such as ``calls``."""
        found = re.search(rf"\b{attribute}=(?:\{{([^}}]*)\}}|%?([\w.-]+))", self.rest)
        return re.findall(r"[\w.-]+", found[1] or found[2]) if found else []


class Computation(NamedTuple):
    """A function of the program: its instructions by name, in their order, and the name of its result."""

    instructions: dict[str, Instruction]
    root: str


class Run(NamedTuple):
    """An instruction that runs, how often, and the computation that it stands in."""

    instruction: Instruction
    times: int
    computation: Computation


class Program:
    """A compiled program.

    Attributes:
        computations: all of its functions by name.
        entry: name of the one that runs.
    """

    def __init__(self, text: str) -> None:
        self.computations: dict[str, Computation] = {}
        self.entry = ""
        self._tables: dict[str, dict[int, str]] = {}
        name, table = "", {}
        for line in text.splitlines():
            if header := _HEADER.match(line):
                name = header[2]
                self.computations[name] = Computation({}, "")
                self.entry = name if header[1] else self.entry
            elif found := _INSTRUCTION.match(line):
                computation = self.computations[name]
                computation.instructions[found[2]] = _parsed(found[2], found[3])
                if found[1]:
                    self.computations[name] = computation._replace(root=found[2])
            elif re.fullmatch(r"[A-Z]\w+", line):
                table = self._tables[line] = {}
            elif row := re.match(r"(\d+) (.*)", line):
                table[int(row[1])] = row[2]

    @property
    def size(self) -> int:
        """Instructions of all computations."""
        return sum(len(computation.instructions) for computation in self.computations.values())

    @functools.cached_property
    def runs(self) -> list[Run]:
        """All instructions that run; of a choice, those of all its branches."""
        return list(self._runs(self.entry, 1))

    def _runs(self, name: str, times: int) -> Iterator[Run]:
        computation = self.computations[name]
        for instruction in computation.instructions.values():
            yield Run(instruction, times, computation)
            for inner in _called(instruction):
                yield from self._runs(inner, times * (self._trips(instruction) or 1))

    @property
    def unknown_loops(self) -> int:
        """Loops of which nobody knows before they run how often they do."""
        return sum(run.instruction.opcode == "while" and self._trips(run.instruction) is None for run in self.runs)

    def _trips(self, loop: Instruction) -> int | None:
        """How often a loop runs; None if it depends on data, and for everything that is no loop."""
        if loop.opcode != "while":
            return None
        if found := _TRIPS.search(loop.rest):
            return int(found[1])
        (condition,) = (self.computations[name] for name in loop.computations("condition"))
        test = condition.instructions[condition.root]
        last = condition.instructions[test.operands[-1]] if test.operands else test
        # The compiler of TPUs does not say it. JAX's own loops of known length count from 0 in steps of 1.
        is_count = test.opcode == "compare" and "direction=LT" in test.rest and last.opcode == "constant"
        return int(last.literal) if is_count else None

    @property
    def cycles(self) -> int:
        """The compiler's estimate of one run."""
        return sum(run.times * run.instruction.cycles for run in self.runs)

    def stage(self, instruction: Instruction) -> str:
        """Where an instruction is from: named scopes, and ``module: function`` of our innermost stack frame."""
        found = re.search(r'op_name="([^"]*)"', instruction.rest)
        parts = found[1].split("/")[:-1] if found else []
        scopes = [part for part in parts if re.fullmatch(r"[a-z][a-z0-9]*", part) and not _STRUCTURE.fullmatch(part)]
        frame = re.search(r"stack_frame_id=(\d+)", instruction.rest)
        number = int(frame[1]) if frame else 0
        while number in self._frames:
            file, function, number = self._frames[number]
            if module := re.search(rf"/(?:{_PACKAGES})/(.*)\.py$", file):
                function = function.split(".<locals>")[0].removesuffix(".__call__")
                return " ".join([*scopes, f"{module[1]}: {function}"])
        return " ".join(scopes) or "compiler"

    @functools.cached_property
    def _frames(self) -> dict[int, tuple[str, str, int]]:
        """Of each stack frame: file, function, and the frame that called it (0: none)."""

        def numbers(row: str) -> dict[str, int]:
            return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", row)}

        files, functions = (
            {number: name.strip('"') for number, name in self._tables.get(table, {}).items()}
            for table in ("FileNames", "FunctionNames")
        )
        places = {number: numbers(row) for number, row in self._tables.get("FileLocations", {}).items()}
        frames = {}
        for number, row in self._tables.get("StackFrames", {}).items():
            frame = numbers(row)
            place = places[frame["file_location_id"]]
            # The text counts frames from 1, and their parents from 0 plus 1: a root names itself or nothing.
            parent = frame.get("parent_frame_id", 1) - 1
            frames[number] = files[place["file_name_id"]], functions[place["function_name_id"]], parent
        return frames


def _called(instruction: Instruction) -> list[str]:
    """The computations whose instructions run one by one; a fusion is one kernel, and has none."""
    attributes = {
        "while": ("body", "condition"),
        "call": ("to_apply",),
        "async-start": ("calls",),
        "conditional": ("branch_computations", "true_computation", "false_computation"),
    }
    return [name for each in attributes.get(instruction.opcode, ()) for name in instruction.computations(each)]


def _parsed(name: str, text: str) -> Instruction:
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    shape, text = text[:end], text[end:].lstrip()
    start = text.index("(")
    end = _closing(text, start)
    opcode, inside, rest = text[:start], text[start + 1 : end], text[end + 1 :]
    literal = inside if opcode in ("parameter", "constant") else ""
    return Instruction(name, shape, opcode, tuple(re.findall(r"%([\w.-]+)", inside)), literal, rest)


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that opens at ``start`` closes."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, start):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.start()
    raise ValueError(f"{text[:80]}: the parentheses do not match")
