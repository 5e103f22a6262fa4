"""Sums of products built from full adders of the library, in place of Yosys' own.

Yosys gathers each multiplication with the additions around it in one cell, ``$macc_v2``, and makes
it of single gates.  Here all its bits go into one heap: the bits of signed operands by Baugh and
Wooley's rule, so that no sign is extended, and all constants as one.  Three bits of a column at a
time, the earliest first, then become two by a full adder of the library (three-greedy: Stelling,
Martel, Oklobdzija, Ravi, "Optimal circuits for parallel multipliers", 1998), until one adder of
two rows is left.  A full adder cell is smaller, and switches less energy, than the gates that it
stands for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synth.cells import Cell, CellLibrary

__all__ = ["SUM_CELL", "FullAdder", "find_full_adder", "replace_sums"]

SUM_CELL = "$macc_v2"

# Truth tables over three inputs, the first with weight 1.
PARITY = 0b10010110
MAJORITY = 0b11101000

# Delays of a partial product, a half adder, and the carry of a full adder of gates, as parts
# of that of a full adder.  They only order the bits, so they need not be exact.
PRODUCT_DELAY = 0.2
HALF_DELAY = 0.5
GATE_CARRY_DELAY = 0.7

# When a bit arrives, and its Verilog expression.
Bit = tuple[float, str]
ONE: Bit = (0.0, "1'b1")


@dataclass(frozen=True, kw_only=True)
class FullAdder:
    """A library cell that adds three bits.

    Parameters
    ----------
    cell : str
        Name of the cell.
    inputs : tuple of str
        Its inputs, the slowest first.
    sum, carry : str
        Its outputs.
    sum_delay, carry_delay : float
        Delays from the mean input, as parts of the longer one.
    """

    cell: str
    inputs: tuple[str, str, str]
    sum: str
    carry: str
    sum_delay: float
    carry_delay: float


def find_full_adder(library: CellLibrary) -> FullAdder | None:
    """Smallest full adder of a library; None if it has none."""
    for cell in library.of_kind("multi-output"):
        if len(cell.inputs) != 3 or len(cell.outputs) != 2:
            continue
        outputs = {
            cell.functions[pin].truth_table(cell.inputs): pin
            for pin in cell.outputs
            if set(cell.functions[pin].inputs) <= set(cell.inputs)
        }
        if outputs.keys() == {PARITY, MAJORITY}:
            return _full_adder(cell, library, outputs[PARITY], outputs[MAJORITY])
    return None


def _full_adder(cell: Cell, library: CellLibrary, sum_pin: str, carry_pin: str) -> FullAdder:
    slew = library.fo4_slew_ns
    load = max(pin.cap_ff for pin in cell.pins.values())
    delays: dict[tuple[str, str], float] = {}
    for arc in cell.arcs:
        for table in (arc.delay_rise, arc.delay_fall):
            if table is not None:
                key = (arc.pin, arc.related)
                delays[key] = max(delays.get(key, 0.0), table.value(slew, load))

    def mean(pin: str) -> float:
        return sum(delays.get((pin, name), 0.0) for name in cell.inputs) / len(cell.inputs)

    slowest, middle, fastest = sorted(
        cell.inputs, key=lambda name: -delays.get((sum_pin, name), 0.0)
    )
    longer = max(mean(sum_pin), mean(carry_pin)) or 1.0
    return FullAdder(
        cell=cell.name,
        inputs=(slowest, middle, fastest),
        sum=sum_pin,
        carry=carry_pin,
        sum_delay=mean(sum_pin) / longer,
        carry_delay=mean(carry_pin) / longer,
    )


def replace_sums(
    module: dict[str, Any], adder: FullAdder | None, *, chain: bool, prefix: str
) -> str:
    """Replace every sum of products in a module by an instance of a module of full adders.

    Parameters
    ----------
    module : dict
        Module as Yosys' ``write_json`` gives it; its cells are replaced in place.
    adder : FullAdder or None
        Cell to use; gates if there is none.
    chain : bool
        Whether columns up to the last one that holds three bits or more are added to the end,
        each carry rippling into the next column: smaller, and slower where the columns above
        wait for it.  If not, two rows are left over all columns.
    prefix : str
        What the names of the new modules begin with.

    Returns
    -------
    str
        Verilog of the new modules; empty if there are no sums.
    """
    texts: list[str] = []
    for name, cell in module["cells"].items():
        if cell["type"] != SUM_CELL:
            continue
        new_name = f"{prefix}{len(texts)}"
        texts.append(_sum_module(new_name, cell, adder, chain))
        module["cells"][name] = {
            "hide_name": cell["hide_name"],
            "type": new_name,
            "parameters": {},
            "attributes": {},
            "port_directions": cell["port_directions"],
            "connections": {port: bits for port, bits in cell["connections"].items() if bits},
        }
    return "\n".join(texts)


def _sum_module(name: str, cell: Mapping[str, Any], adder: FullAdder | None, chain: bool) -> str:
    """Write one ``$macc_v2`` as a module with the same ports."""

    def number(key: str) -> int:
        return int(cell["parameters"][key], 2)

    def widths(key: str, count: int) -> list[int]:
        return [number(key) >> 16 * index & 0xFFFF for index in range(count)]

    def flag(key: str, index: int) -> bool:
        return bool(number(key) >> index & 1)

    heap = _Heap(number("Y_WIDTH"), adder)
    bits = {port: _expressions(port, cell["connections"][port]) for port in "ABC"}
    products, addends = number("NPRODUCTS"), number("NADDENDS")
    for index, (a_width, b_width) in enumerate(
        zip(widths("A_WIDTHS", products), widths("B_WIDTHS", products), strict=True)
    ):
        signed = flag("A_SIGNED", index) and flag("B_SIGNED", index)
        a, bits["A"] = bits["A"][:a_width], bits["A"][a_width:]
        b, bits["B"] = bits["B"][:b_width], bits["B"][b_width:]
        heap.add_product(a, b, signed=signed, negated=flag("PRODUCT_NEGATED", index))
    for index, width in enumerate(widths("C_WIDTHS", addends)):
        c, bits["C"] = bits["C"][:width], bits["C"][width:]
        heap.add(c, signed=flag("C_SIGNED", index), negated=flag("ADDEND_NEGATED", index))

    inputs = {port: len(cell["connections"][port]) for port in "ABC" if cell["connections"][port]}
    lines = [
        f"module {name}({', '.join([*inputs, 'Y'])});",
        *(f"  input [{width - 1}:0] {port};" for port, width in inputs.items()),
        f"  output [{heap.width - 1}:0] Y;",
        *heap.statements(chain),
        "endmodule",
    ]
    return "\n".join(lines) + "\n"


def _expressions(port: str, bits: Sequence[int | str]) -> list[str]:
    """Verilog of each bit of a port; the same for the same net, ``0`` or ``1`` for constants."""
    known: dict[int, str] = {}
    return [
        ("1" if bit == "1" else "0")
        if isinstance(bit, str)
        else known.setdefault(bit, f"{port}[{index}]")
        for index, bit in enumerate(bits)
    ]


class _Heap:
    """Bits by column, to be added modulo 2**width."""

    def __init__(self, width: int, adder: FullAdder | None) -> None:
        self.width = width
        self.adder = adder
        self.columns: list[list[Bit]] = [[] for _ in range(width)]
        self.constant = 0
        self.lines: list[str] = []
        self.wires = 0

    def add(self, bits: Sequence[str], *, signed: bool, negated: bool) -> None:
        """Add or subtract an operand."""
        bits = list(bits)
        # Copies of the sign say nothing new.
        while signed and len(bits) > 1 and bits[-1] == bits[-2]:
            bits.pop()
        for index, bit in enumerate(bits):
            sign = signed and index == len(bits) - 1
            self._put(index, bit, 0.0, negative=sign != negated)

    def add_product(
        self, a: Sequence[str], b: Sequence[str], *, signed: bool, negated: bool
    ) -> None:
        """Add or subtract a product: bits with one sign among their factors count negative."""
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                signs = signed and (i == len(a) - 1) != (j == len(b) - 1)
                if "0" in (x, y):
                    bit = "0"
                elif "1" in (x, y):
                    bit = y if x == "1" else x
                else:
                    bit = f"({x} & {y})"
                self._put(i + j, bit, PRODUCT_DELAY, negative=signs != negated)

    def _put(self, column: int, bit: str, time: float, *, negative: bool) -> None:
        """Add a bit; a negative one is its complement less one."""
        if bit in "01":
            self.constant += (-int(bit) if negative else int(bit)) << column
        elif column < self.width:
            self.columns[column].append((time, f"~{bit}" if negative else bit))
            self.constant -= negative << column

    def statements(self, chain: bool) -> list[str]:
        """Reduce the heap and write all of it as Verilog statements."""
        for column in range(self.width):
            if self.constant >> column & 1:
                self.columns[column].append(ONE)
        tall = [column for column, bits in enumerate(self.columns) if len(bits) > 2]
        # A single tall column is only the carry into an adder of two rows.
        chained = tall[-1] + 1 if chain and len(tall) > 1 else 0
        carry_in: str | None = None
        for column, bits in enumerate(self.columns):
            bits.sort()
            lower = self.columns[:column]
            if (
                len(bits) == 3
                and column >= chained
                and carry_in is None
                and all(len(below) <= 1 for below in lower)
            ):
                carry_in = bits.pop()[1]
            while len(bits) > (1 if column < chained else 2):
                total, carry = self._reduce(bits)
                bits.append(total)
                bits.sort()
                if column + 1 < self.width:
                    self.columns[column + 1].append(carry)
        return [*self.lines, *self._final(carry_in)]

    def _reduce(self, bits: list[Bit]) -> tuple[Bit, Bit]:
        """Take the earliest bits of a column and add them: their sum, and the carry."""
        if ONE in bits:
            bits.remove(ONE)
            time, x = bits.pop(0)
            if not bits:
                return (time, f"~{x}"), (time, x)
            later, y = bits.pop(0)
            time = max(time, later) + HALF_DELAY
            return (time, self._wire(f"~({x} ^ {y})")), (time, self._wire(f"{x} | {y}"))
        if len(bits) == 2:
            (_, x), (time, y) = bits
            bits.clear()
            time += HALF_DELAY
            return (time, self._wire(f"{x} ^ {y}")), (time, self._wire(f"{x} & {y}"))
        taken, bits[:] = bits[:3], bits[3:]
        time = taken[-1][0]
        if self.adder is None:
            x, y, z = (bit for _, bit in taken)
            total = self._wire(f"{x} ^ {y} ^ {z}")
            carry = self._wire(f"{x} & {y} | {z} & ({x} | {y})")
            return (time + 1.0, total), (time + GATE_CARRY_DELAY, carry)
        total, carry = self._wire(), self._wire()
        pins = dict(zip(self.adder.inputs, (bit for _, bit in taken), strict=True))
        pins |= {self.adder.sum: total, self.adder.carry: carry}
        connections = ", ".join(f".{pin}({bit})" for pin, bit in pins.items())
        self.lines.append(f"  {self.adder.cell} add_{total} ({connections});")
        return (time + self.adder.sum_delay, total), (time + self.adder.carry_delay, carry)

    def _wire(self, expression: str | None = None) -> str:
        name = f"w{self.wires}"
        self.wires += 1
        assignment = "" if expression is None else f" = {expression}"
        self.lines.append(f"  wire {name}{assignment};")
        return name

    def _final(self, carry_in: str | None) -> list[str]:
        """Add what is left: single bits up to some column, and two rows from there."""
        begin = next((k for k, bits in enumerate(self.columns) if len(bits) > 1), self.width)
        single = [bits[0][1] if bits else "1'b0" for bits in self.columns[:begin]]
        lines = [f"  assign Y[{column}] = {bit};" for column, bit in enumerate(single)]
        if begin < self.width:
            rows = [
                ", ".join(
                    bits[row][1] if row < len(bits) else "1'b0"
                    for bits in reversed(self.columns[begin:])
                )
                for row in range(2)
            ]
            terms = [f"{{{term}}}" for term in (*rows, *([carry_in] if carry_in else []))]
            total = " + ".join(terms)
            lines.append(f"  assign Y[{self.width - 1}:{begin}] = {total};")
        return lines
