"""Parser of RTLIL, Yosys' textual netlist, as far as Amaranth 0.5 writes it.

Everything that Amaranth emits is read; anything else is refused by name, so that nothing can be
lost silently.  The grammar is that of Yosys' manual, "RTLIL text representation".
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

__all__ = [
    "Assignment",
    "Bits",
    "Case",
    "Cell",
    "Chunk",
    "Memory",
    "Module",
    "Parameter",
    "Process",
    "RtlilError",
    "SigSpec",
    "Switch",
    "Wire",
    "flatten",
    "identifier",
    "parse",
]


class RtlilError(ValueError):
    """The text is not RTLIL, or uses a part of it that is not supported."""


class Bits(NamedTuple):
    """Constant of ``width`` bits."""

    value: int
    width: int


class Chunk(NamedTuple):
    """Bits ``low`` to ``low + width - 1`` of the wire ``wire``."""

    wire: str
    low: int
    width: int


#: Value of a parameter or an attribute.
Parameter = str | int | float | Bits

#: Bits of a signal, least significant chunk first.
SigSpec = tuple[Bits | Chunk, ...]


@dataclass
class Wire:
    """A net.

    Attributes
    ----------
    name : str
        Name; of a nameless net ``$`` and a number.
    width : int
        Bits.
    signed : bool
        Whether it was declared as two's complement.
    port : str or None
        ``"input"`` or ``"output"`` of a port.
    attributes : dict of str to str or Bits
        Attributes.
    """

    name: str
    width: int
    signed: bool
    port: str | None
    attributes: dict[str, Parameter]


@dataclass
class Memory:
    """An array of ``size`` words of ``width`` bits."""

    name: str
    width: int
    size: int


@dataclass
class Cell:
    """An operator (``kind`` starts with ``$``), register, memory port or instance of a module.

    A parameter or connection is found under the name that follows the backslash.

    Attributes
    ----------
    outputs : set of str
        Ports that are connected to a wire without a range, which is how outputs are written;
        RTLIL does not tell the direction of an instance's ports otherwise.
    """

    kind: str
    name: str
    attributes: dict[str, Parameter]
    parameters: dict[str, Parameter] = field(default_factory=dict)
    connections: dict[str, SigSpec] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)


class Assignment(NamedTuple):
    """``target`` takes ``value``."""

    target: SigSpec
    value: SigSpec


class Case(NamedTuple):
    """``body`` is for selectors that match one of ``patterns`` (of 0, 1 and -); none: for all."""

    patterns: tuple[str, ...]
    body: "list[Assignment | Switch]"


class Switch(NamedTuple):
    """The first case that matches the selector is taken."""

    selector: SigSpec
    cases: list[Case]


@dataclass
class Process:
    """Statements in order; a later assignment wins."""

    name: str
    body: list[Assignment | Switch]


@dataclass
class Module:
    """A module; names come without the leading backslash."""

    name: str
    wires: dict[str, Wire] = field(default_factory=dict)
    memories: dict[str, Memory] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    connections: list[Assignment] = field(default_factory=list)


def parse(text: str) -> dict[str, Module]:
    """Read the modules of an RTLIL text.

    Returns
    -------
    dict of str to Module
        Modules by name, in the order of the text.

    Raises
    ------
    RtlilError
        If the text has anything that Amaranth 0.5 does not write.
    """
    return _Parser(text).modules()


def flatten(modules: dict[str, Module], top: str) -> Module:
    """Put the contents of those of ``modules`` that ``top`` instantiates into ``top``.

    What was in an instance gets the name of the instance and ``/``, which no other name has,
    before its own name.
    """
    module = modules[top]
    cells = []
    for cell in module.cells:
        if cell.kind not in modules:
            cells.append(cell)
            continue
        inner = flatten(modules, cell.kind)
        rename = partial(_inside, cell.name)
        for wire in inner.wires.values():
            name = rename(wire.name)
            module.wires[name] = Wire(name, wire.width, wire.signed, None, wire.attributes)
            if wire.port == "input":
                value = cell.connections[wire.name]
                module.connections.append(Assignment((Chunk(name, 0, wire.width),), value))
            elif wire.port == "output":
                value = (Chunk(name, 0, wire.width),)
                module.connections.append(Assignment(cell.connections[wire.name], value))
        for memory in inner.memories.values():
            name = rename(memory.name)
            module.memories[name] = Memory(name, memory.width, memory.size)
        for other in inner.cells:
            parameters = dict(other.parameters)
            if "MEMID" in parameters:
                memory_name = identifier(str(parameters["MEMID"]))
                parameters["MEMID"] = rename(memory_name)
            connections = {
                port: _renamed(value, rename) for port, value in other.connections.items()
            }
            cells.append(
                Cell(
                    other.kind,
                    rename(other.name),
                    other.attributes,
                    parameters,
                    connections,
                    other.outputs,
                )
            )
        module.processes += [
            Process(rename(process.name), _renamed_body(process.body, rename))
            for process in inner.processes
        ]
        module.connections += [
            Assignment(_renamed(target, rename), _renamed(value, rename))
            for target, value in inner.connections
        ]
    module.cells = cells
    return module


def _inside(instance: str, name: str) -> str:
    """Name of what is called ``name`` in ``instance``; temporaries stay temporaries."""
    return f"${instance}{name}" if name.startswith("$") else f"{instance}/{name}"


def _renamed(value: SigSpec, rename: Callable[[str], str]) -> SigSpec:
    return tuple(
        part._replace(wire=rename(part.wire)) if isinstance(part, Chunk) else part for part in value
    )


def _renamed_body(
    body: list[Assignment | Switch], rename: Callable[[str], str]
) -> list[Assignment | Switch]:
    result: list[Assignment | Switch] = []
    for statement in body:
        if isinstance(statement, Assignment):
            result.append(Assignment(*(_renamed(value, rename) for value in statement)))
        else:
            cases = [
                Case(case.patterns, _renamed_body(case.body, rename)) for case in statement.cases
            ]
            result.append(Switch(_renamed(statement.selector, rename), cases))
    return result


_CONSTANT = re.compile(r"(\d+)'([01]*)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"'}


class _Parser:
    def __init__(self, text: str) -> None:
        numbered = enumerate(text.splitlines(), 1)
        self._lines: Iterator[tuple[int, str]] = (
            (number, line.strip()) for number, line in numbered if line.strip()
        )
        self._number = 0
        self._module = Module("")
        self._attributes: dict[str, Parameter] = {}

    def _refuse(self, what: str) -> RtlilError:
        return RtlilError(f"RTLIL line {self._number} must be what Amaranth writes, not {what}")

    def _next(self) -> str | None:
        """Next line that is not empty, None at the end."""
        self._number, line = next(self._lines, (self._number, None))
        return line

    def _statement(self) -> tuple[str, str]:
        """First word of the next line, and the rest of it; the text must not end here."""
        line = self._next()
        if line is None:
            raise self._refuse("the end of the text")
        word, _, rest = line.partition(" ")
        return word, rest.strip()

    def modules(self) -> dict[str, Module]:
        """All modules of the text."""
        result: dict[str, Module] = {}
        while (line := self._next()) is not None:
            word, _, rest = line.partition(" ")
            if word == "module":
                module = self._read_module(identifier(rest))
                result[module.name] = module
            elif word != "attribute":
                raise self._refuse(repr(line))
        return result

    def _read_module(self, name: str) -> Module:
        self._module = module = Module(name)
        while True:
            word, rest = self._statement()
            match word:
                case "attribute":
                    key, _, value = rest.partition(" ")
                    self._attributes[identifier(key)] = self._parameter(value)
                    continue
                case "wire":
                    wire = self._read_wire(rest.split())
                    module.wires[wire.name] = wire
                case "memory":
                    memory = self._read_memory(rest.split())
                    module.memories[memory.name] = memory
                case "cell":
                    module.cells.append(self._read_cell(rest))
                case "process":
                    body, end, _ = self._read_body()
                    if end != "end":
                        raise self._refuse(f"{end!r} in a process")
                    module.processes.append(Process(identifier(rest), body))
                case "connect":
                    module.connections.append(self._assignment(rest))
                case "end":
                    return module
                case _:
                    raise self._refuse(repr(f"{word} {rest}".strip()))
            self._attributes = {}

    def _read_wire(self, words: list[str]) -> Wire:
        width, signed, port = 1, False, None
        rest = iter(words[:-1])
        for word in rest:
            match word:
                case "width":
                    width = int(next(rest))
                case "signed":
                    signed = True
                case "input" | "output":
                    port = word
                    next(rest)  # the position of the port
                case _:
                    raise self._refuse(f"the wire option {word!r}")
        return Wire(identifier(words[-1]), width, signed, port, self._attributes)

    def _read_memory(self, words: list[str]) -> Memory:
        if len(words) != 5 or words[0] != "width" or words[2] != "size":
            raise self._refuse(f"the memory {' '.join(words)!r}")
        return Memory(identifier(words[4]), int(words[1]), int(words[3]))

    def _read_cell(self, header: str) -> Cell:
        kind, _, name = header.partition(" ")
        cell = Cell(identifier(kind), identifier(name.strip()), self._attributes)
        while True:
            word, rest = self._statement()
            key, _, value = rest.partition(" ")
            match word:
                case "parameter":
                    kind = key if key in ("signed", "real") else ""
                    if kind:
                        key, _, value = value.partition(" ")
                    cell.parameters[identifier(key)] = self._parameter(value, kind)
                case "connect":
                    cell.connections[identifier(key)] = self._sigspec(value)
                    if value[0] in "\\$" and "[" not in value.partition(" ")[2]:
                        cell.outputs.add(identifier(key))
                case "end":
                    return cell
                case _:
                    raise self._refuse(f"{word!r} in a cell")

    def _read_body(self) -> tuple[list[Assignment | Switch], str, str]:
        """Statements up to ``case`` or ``end``; that word, and what follows it."""
        body: list[Assignment | Switch] = []
        while True:
            word, rest = self._statement()
            match word:
                case "assign":
                    body.append(self._assignment(rest))
                case "switch":
                    body.append(self._read_switch(self._sigspec(rest)))
                case "case" | "end":
                    return body, word, rest
                case _:
                    raise self._refuse(f"{word!r} in a process")

    def _read_switch(self, selector: SigSpec) -> Switch:
        switch = Switch(selector, [])
        word, rest = self._statement()
        while word == "case":
            patterns = tuple(part.split("'")[1] for part in rest.split(", ")) if rest else ()
            body, word, rest = self._read_body()
            switch.cases.append(Case(patterns, body))
        if word != "end":
            raise self._refuse(f"{word!r} in a switch")
        return switch

    def _assignment(self, text: str) -> Assignment:
        target, rest = self._take(text.split())
        value, rest = self._take(rest)
        if rest:
            raise self._refuse(f"{' '.join(rest)!r} after an assignment")
        return Assignment(target, value)

    def _sigspec(self, text: str) -> SigSpec:
        value, rest = self._take(text.split())
        if rest:
            raise self._refuse(f"{' '.join(rest)!r} after a signal")
        return value

    def _take(self, words: list[str]) -> tuple[SigSpec, list[str]]:
        """Signal at the beginning of ``words``, and the words after it."""
        if not words:
            raise self._refuse("a missing signal")
        if words[0] == "{}":
            return (), words[1:]
        if words[0] == "{":
            chunks: SigSpec = ()
            rest = words[1:]
            while rest and rest[0] != "}":
                more, rest = self._take(rest)
                chunks = more + chunks  # the text has the most significant chunk first
            return chunks, rest[1:]

        word, rest = words[0], words[1:]
        if word[0] not in "\\$":
            return (self._bits(word),), rest
        wire = self._module.wires.get(identifier(word))
        if wire is None:
            raise self._refuse(f"the unknown wire {word!r}")
        if not rest or not rest[0].startswith("["):
            return (Chunk(wire.name, 0, wire.width),) if wire.width else (), rest
        high, _, low = rest[0].strip("[]").partition(":")
        first = int(low or high)
        return (Chunk(wire.name, first, int(high) - first + 1),), rest[1:]

    def _bits(self, word: str) -> Bits:
        match = _CONSTANT.fullmatch(word)
        if match is None:
            raise self._refuse(f"the constant {word!r}")
        return Bits(int(match[2] or "0", 2), int(match[1]))

    def _parameter(self, text: str, kind: str = "") -> "Parameter":
        """Parameter or attribute: a string, a number, or bits (a string if some are undefined)."""
        if kind == "real":
            return float(text.strip('"'))
        if kind == "signed":
            value, width = self._bits(text)
            return value - (value >> width - 1 << width)
        if text.startswith('"'):
            return re.sub(r"\\(.)", lambda match: _ESCAPES[match[1]], text[1:-1])
        if text.isdigit():
            return int(text)
        if "x" in text:
            return text
        return self._bits(text)


def identifier(name: str) -> str:
    """Name without the backslash of names that a user chose, unless it would look like no such."""
    return name if name.startswith("\\$") else name.removeprefix("\\")
