"""Sums of products built from full adders of the library, in place of Yosys' own.

Yosys gathers each multiplication with the additions around it in one cell, ``$macc_v2``, and makes
it of single gates.  Here all its bits go into one heap: the bits of signed operands by Baugh and
Wooley's rule, so that no sign is extended, and all constants as one.  Three bits of a column at a
time, the earliest first, then become two by a full adder of the library (three-greedy: Stelling,
Martel, Oklobdzija, Ravi, "Optimal circuits for parallel multipliers", 1998), until one adder of
two rows is left.  A full adder cell is smaller, and switches less energy, than the gates that it
stands for.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from synth.cells import Cell

__all__ = ["Adder", "find_adder", "has_sums", "replace_sums"]

SUM_CELL = "$macc_v2"
ADDER_CELL = "$alu"

# Truth tables of sum and carry by the number of inputs, of which the first has weight 1.
TABLES = {2: (0b0110, 0b1000), 3: (0b10010110, 0b11101000)}

# A bit that is neither a product nor a complement.
PLAIN = re.compile(r"\w+(\[\d+\])?")

# Delays of a partial product, a half adder, and the carry of a full adder of gates, as parts of
# that of a full adder.  They only order the bits, so they need not be exact.
PRODUCT_DELAY = 0.2
HALF_DELAY = 0.5
GATE_CARRY_DELAY = 0.7

# A bit in Yosys' JSON: the number of a net, or "0", "1" or "x".
Net = int | str
# When a bit arrives, and its Verilog expression.
Bit = tuple[float, str]
ONE: Bit = (0.0, "1'b1")


@dataclass(frozen=True, kw_only=True)
class Adder:
    """A library cell that adds two or three bits: a half or full adder.

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
    inverts_sum, inverts_carry : bool
        Whether that output is the complement.
    """

    cell: str
    inputs: tuple[str, ...]
    sum: str
    carry: str
    sum_delay: float
    carry_delay: float
    inverts_sum: bool = False
    inverts_carry: bool = False


def find_adder(cells: Iterable[Cell], bits: int, slew_ns: float) -> Adder | None:
    """Find the first adder of so many bits among cells.

    Parameters
    ----------
    cells : iterable of Cell
        Cells without state, the smallest first.
    bits : int
        3 for a full adder, 2 for a half adder.
    slew_ns : float
        Slew at which delays are compared, in ns.

    Returns
    -------
    Adder or None
        None if there is none.
    """
    both = (1 << (1 << bits)) - 1
    parity, majority = TABLES[bits]
    for cell in cells:
        if len(cell.inputs) != bits or len(cell.outputs) != 2:
            continue
        outputs = {cell.functions[pin].truth_table(cell.inputs): pin for pin in cell.outputs}
        sums = [table for table in (parity, both ^ parity) if table in outputs]
        carries = [table for table in (majority, both ^ majority) if table in outputs]
        if sums and carries:
            return replace(
                _adder(cell, slew_ns, outputs[sums[0]], outputs[carries[0]]),
                inverts_sum=sums[0] != parity,
                inverts_carry=carries[0] != majority,
            )
    return None


def _adder(cell: Cell, slew_ns: float, sum_pin: str, carry_pin: str) -> Adder:
    load = max(pin.cap_ff for pin in cell.pins.values())
    delays: dict[tuple[str, str], float] = {}
    for arc in cell.arcs:
        for table in (arc.delay_rise, arc.delay_fall):
            if table is not None:
                key = (arc.pin, arc.related)
                delays[key] = max(delays.get(key, 0.0), table.value(slew_ns, load))

    def mean(pin: str) -> float:
        return sum(delays.get((pin, name), 0.0) for name in cell.inputs) / len(cell.inputs)

    slowest_first = sorted(cell.inputs, key=lambda name: -delays.get((sum_pin, name), 0.0))
    longer = max(mean(sum_pin), mean(carry_pin)) or 1.0
    return Adder(
        cell=cell.name,
        inputs=tuple(slowest_first),
        sum=sum_pin,
        carry=carry_pin,
        sum_delay=mean(sum_pin) / longer,
        carry_delay=mean(carry_pin) / longer,
    )


def has_sums(module: Mapping[str, Any]) -> bool:
    """Whether `replace_sums` finds anything to replace in a module."""
    return bool(_gather(module)[0])


def replace_sums(
    module: dict[str, Any],
    full: Adder | None,
    half: Adder | None,
    *,
    chain: bool,
    prefix: str,
    halve: bool = False,
) -> str:
    """Replace every sum in a module by an instance of a module of full adders.

    Sums are products, sums of more than two operands, and those of two of which one is extended
    by its sign.  A sum that only one other one uses, and whole, becomes part of that one.

    Parameters
    ----------
    module : dict
        Module as Yosys' ``write_json`` gives it; its cells are replaced in place.
    full, half : Adder or None
        Cells to use; gates where there is none.
    chain : bool
        Whether columns up to the last one that holds three bits or more are added to the end,
        each carry rippling into the next column: smaller, and slower where the columns above
        wait for it.  If not, two rows are left over all columns.
    prefix : str
        What the names of the new modules begin with.
    halve : bool
        Whether the two early bits of a column that has a late one more are added by themselves, so
        that the carry does not wait: faster where few rows are added, and larger.

    Returns
    -------
    str
        Verilog of the new modules; empty if there are no sums.
    """
    sums, absorbed = _gather(module)
    for name in absorbed:
        del module["cells"][name]
    texts = []
    for index, (name, total) in enumerate(sums.items()):
        heap = _Heap(len(total.result), full, half)
        for operand in total.operands:
            heap.add(operand)
        texts.append(heap.module(f"{prefix}{index}", chain=chain, halve=halve))
        module["cells"][name] = {
            "hide_name": module["cells"][name]["hide_name"],
            "type": f"{prefix}{index}",
            "parameters": {},
            "attributes": {},
            "port_directions": {"X": "input", "Y": "output"},
            "connections": {"X": list(heap.inputs), "Y": total.result},
        }
    return "\n".join(texts)


@dataclass(frozen=True, kw_only=True)
class _Operand:
    """A number, or a product of two, that is added or subtracted."""

    factors: tuple[tuple[Net, ...], ...]
    signed: bool
    negated: bool

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest value."""
        low, high = 1, 1
        for bits in self.factors:
            span = 1 << len(bits)
            least, most = (-span // 2, span // 2 - 1) if self.signed else (0, span - 1)
            corners = [a * b for a in (low, high) for b in (least, most)]
            low, high = min(corners), max(corners)
        return (-high, -low) if self.negated else (low, high)


@dataclass(kw_only=True)
class _Sum:
    """A cell that adds operands modulo the width of its result.

    ``gathered`` tells whether it is more than an adder of two numbers of that width.
    """

    operands: list[_Operand]
    result: list[Net]
    gathered: bool

    def fits(self, bits: Sequence[Net], width: int, *, signed: bool) -> bool:
        """Whether ``bits``, an operand of a sum of ``width`` bits, stand for this whole sum.

        They must be its result, perhaps extended, and an extension must find the exact value in
        the result, not one that was cut off.
        """
        own = len(self.result)
        if list(bits[:own]) != self.result[: len(bits)]:
            return False
        if min(len(bits), own) >= width:
            return True
        if len(bits) < own:
            return False
        copies = set(bits[own:])
        low, high = 0, (1 << own) - 1
        if (copies == {self.result[-1]} and (signed or len(bits) >= width)) or (
            signed and not copies
        ):
            low, high = -(1 << own - 1), (1 << own - 1) - 1
        elif not copies <= {"0"}:
            return False
        least = sum(operand.limits[0] for operand in self.operands)
        most = sum(operand.limits[1] for operand in self.operands)
        return low <= least and most <= high


def _gather(module: Mapping[str, Any]) -> tuple[dict[str, _Sum], list[str]]:
    """Find the sums of a module by cell, and the cells that became part of another's sum."""
    uses = _uses(module)
    sums: dict[str, _Sum] = {}
    absorbed: list[str] = []
    for name, cell in module["cells"].items():
        total = _sum_of_macc(cell) if cell["type"] == SUM_CELL else _sum_of_alu(cell, uses)
        if total is not None:
            sums[name] = total
    producers = {total.result[0]: name for name, total in sums.items()}

    def absorb(name: str) -> Iterator[_Operand]:
        total = sums[name]
        for operand in total.operands:
            bits = operand.factors[0]
            source = producers.get(bits[0]) if len(operand.factors) == 1 and bits else None
            part = sums.get(source) if source not in (None, name) else None
            if (
                source is None
                or part is None
                or not part.fits(bits, len(total.result), signed=operand.signed)
                or any(uses[net] != bits.count(net) for net in part.result)
            ):
                yield operand
                continue
            total.gathered = True
            yield from (
                replace(inner, negated=inner.negated != operand.negated) for inner in absorb(source)
            )
            del sums[source]
            absorbed.append(source)

    for name in list(sums):
        if name in sums:
            sums[name].operands = list(absorb(name))
    return {name: total for name, total in sums.items() if total.gathered}, absorbed


def _uses(module: Mapping[str, Any]) -> Counter[Net]:
    """How many inputs of cells, and output ports, each net goes to."""
    uses: Counter[Net] = Counter()
    for cell in module["cells"].values():
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] != "output":
                uses.update(bits)
    for port in module["ports"].values():
        if port["direction"] != "input":
            uses.update(port["bits"])
    return uses


def _number(cell: Mapping[str, Any], key: str) -> int:
    # A parameter about operands that there are none of is undefined.
    return int(cell["parameters"][key].replace("x", "0"), 2)


def _sum_of_macc(cell: Mapping[str, Any]) -> _Sum:
    """Read Yosys' ``$macc_v2``."""

    def split(port: str, count: int) -> Iterator[tuple[Net, ...]]:
        bits, widths = cell["connections"][port], _number(cell, f"{port}_WIDTHS")
        begin = 0
        for index in range(count):
            end = begin + (widths >> 16 * index & 0xFFFF)
            yield tuple(bits[begin:end])
            begin = end

    def flag(key: str, index: int) -> bool:
        return bool(_number(cell, key) >> index & 1)

    products, addends = _number(cell, "NPRODUCTS"), _number(cell, "NADDENDS")
    operands = [
        _Operand(
            factors=factors,
            signed=flag("A_SIGNED", index) and flag("B_SIGNED", index),
            negated=flag("PRODUCT_NEGATED", index),
        )
        for index, factors in enumerate(
            zip(split("A", products), split("B", products), strict=True)
        )
    ]
    operands += [
        _Operand(
            factors=(bits,), signed=flag("C_SIGNED", index), negated=flag("ADDEND_NEGATED", index)
        )
        for index, bits in enumerate(split("C", addends))
    ]
    return _Sum(operands=operands, result=cell["connections"]["Y"], gathered=True)


def _sum_of_alu(cell: Mapping[str, Any], uses: Mapping[Net, int]) -> _Sum | None:
    """Read Yosys' ``$alu`` if it adds or subtracts, and none but its sum is used."""
    if cell["type"] != ADDER_CELL:
        return None
    connections = cell["connections"]
    subtracting = connections["BI"] == ["1"]
    if any(uses[net] for net in (*connections["X"], *connections["CO"])):
        return None
    if connections["BI"] not in (["0"], ["1"]) or (subtracting and connections["CI"] != ["1"]):
        return None
    signed = bool(_number(cell, "A_SIGNED") and _number(cell, "B_SIGNED"))
    operands = [
        _Operand(factors=(tuple(connections[port]),), signed=signed, negated=negated)
        for port, negated in (("A", False), ("B", subtracting))
    ]
    if not subtracting:
        carry = (tuple(connections["CI"]),)
        operands.append(_Operand(factors=carry, signed=False, negated=False))
    extended = any(
        len(bits) > 1 and bits[-1] == bits[-2] and isinstance(bits[-1], int)
        for bits in (connections["A"], connections["B"])
    ) or (signed and len(connections["A"]) != len(connections["B"]))
    return _Sum(operands=operands, result=connections["Y"], gathered=extended)


def _complement(bit: str) -> str:
    """Verilog of a bit's complement."""
    return bit[1:] if bit[0] == "~" else f"~{bit}"


def _inverters(bits: Iterable[str]) -> int:
    """How many inverters some bits need; a product of two costs the same with and without."""
    return sum(bit[0] == "~" and bit[1] != "(" for bit in bits)


class _Heap:
    """Bits by column, to be added modulo 2**width.

    Attributes
    ----------
    inputs : dict of net to str
        Verilog expression of each net that comes in, in the order of the bits of port ``X``.
    """

    def __init__(self, width: int, full: Adder | None, half: Adder | None) -> None:
        self.width = width
        self.full = full
        self.half = half
        self.inputs: dict[Net, str] = {}
        self.columns: list[list[Bit]] = [[] for _ in range(width)]
        self.constant = 0
        self.lines: list[str] = []
        self.wires = 0

    def add(self, operand: _Operand) -> None:
        """Add or subtract an operand; bits with one sign among their factors count negative."""
        signed, negated = operand.signed, operand.negated
        if len(operand.factors) == 1 and len(operand.factors[0]) >= self.width:
            signed = True  # modulo 2**width, the last bit may as well be a sign
        first = self._expressions(operand.factors[0], signed=signed)
        if len(operand.factors) == 1:
            for index, x in enumerate(first):
                sign = signed and index == len(first) - 1
                self._put(index, x, 0.0, negative=sign != negated)
            return
        second = self._expressions(operand.factors[1], signed=signed)
        for i, x in enumerate(first):
            for j, y in enumerate(second):
                sign = signed and (i == len(first) - 1) != (j == len(second) - 1)
                if "0" in (x, y):
                    bit = "0"
                elif "1" in (x, y):
                    bit = y if x == "1" else x
                else:
                    bit = f"({x} & {y})"
                self._put(i + j, bit, PRODUCT_DELAY, negative=sign != negated)

    def _expressions(self, bits: Sequence[Net], *, signed: bool) -> list[str]:
        """Verilog of each bit, ``0`` or ``1`` for constants; without copies of the sign."""
        bits = list(bits)
        while signed and len(bits) > 1 and bits[-1] == bits[-2]:
            bits.pop()
        return [
            ("1" if bit == "1" else "0")
            if isinstance(bit, str)
            else self.inputs.setdefault(bit, f"X[{len(self.inputs)}]")
            for bit in bits
        ]

    def _put(self, column: int, bit: str, time: float, *, negative: bool) -> None:
        """Add a bit; a negative one is its complement less one."""
        if bit in "01":
            self.constant += (-int(bit) if negative else int(bit)) << column
        elif column < self.width:
            self.columns[column].append((time, f"~{bit}" if negative else bit))
            self.constant -= negative << column

    def module(self, name: str, *, chain: bool, halve: bool) -> str:
        """Reduce the heap and write all of it as a module with ports ``X`` and ``Y``."""
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
                late = []
                if halve and len(bits) == 3 and bits[2][0] - bits[1][0] >= HALF_DELAY:
                    late = [bits.pop()]
                total, carry = self._reduce(bits)
                bits += [total, *late]
                bits.sort()
                if column + 1 < self.width:
                    self.columns[column + 1].append(carry)
        lines = [
            f"module {name}(X, Y);",
            f"  input [{max(len(self.inputs), 1) - 1}:0] X;",
            f"  output [{self.width - 1}:0] Y;",
            *self.lines,
            *self._final(carry_in),
            "endmodule",
        ]
        return "\n".join(lines) + "\n"

    def _reduce(self, bits: list[Bit]) -> tuple[Bit, Bit]:
        """Take the earliest bits of a column and add them: their sum, and the carry."""
        if ONE in bits:
            bits.remove(ONE)
            time, x = bits.pop(0)
            if not bits:
                return (time, f"~{x}"), (time, x)
            later, y = bits.pop(0)
            total, carry = self._half(x, y, carries_in=True)
            time = max(time, later) + HALF_DELAY
            return (time, total), (time, carry)
        if len(bits) == 2:
            (_, x), (time, y) = bits
            bits.clear()
            total, carry = self._half(x, y, carries_in=False)
            return (time + HALF_DELAY, total), (time + HALF_DELAY, carry)
        taken, bits[:] = bits[:3], bits[3:]
        time = taken[-1][0]
        if self.full is None:
            x, y, z = (bit for _, bit in taken)
            total = self._wire(f"{x} ^ {y} ^ {z}")
            carry = self._wire(f"{x} & {y} | {z} & ({x} | {y})")
            return (time + 1.0, total), (time + GATE_CARRY_DELAY, carry)
        # Sum and carry of three complements are the complements of sum and carry, so that adders
        # that invert, fed by others, need inverters at every second level at most.
        inputs = [bit for _, bit in taken]
        inverts = self.full.inverts_sum or self.full.inverts_carry
        flips = inverts and _inverters(map(_complement, inputs)) < _inverters(inputs)
        total, carry = self._place(self.full, inputs, flips=flips)
        return (time + self.full.sum_delay, total), (time + self.full.carry_delay, carry)

    def _half(self, x: str, y: str, *, carries_in: bool) -> tuple[str, str]:
        """Add two bits, and one more if a carry comes in, to a sum and a carry.

        With a carry, these are the complements of those of the complements without one.  Mapping
        merges gates with products and inverters before them, so a cell would be larger there.
        """
        inputs = [_complement(bit) for bit in (x, y)] if carries_in else [x, y]
        if self.half is not None and all(PLAIN.fullmatch(bit) for bit in inputs):
            return self._place(self.half, [x, y], flips=carries_in)
        if carries_in:
            return self._wire(f"~({x} ^ {y})"), self._wire(f"{x} | {y}")
        return self._wire(f"{x} ^ {y}"), self._wire(f"{x} & {y}")

    def _place(self, adder: Adder, inputs: Sequence[str], *, flips: bool) -> tuple[str, str]:
        """Make an instance; with complements of inputs and outputs if it flips."""
        if flips:
            inputs = [_complement(bit) for bit in inputs]
        total, carry = self._wire(), self._wire()
        pins = dict(zip(adder.inputs, inputs, strict=True))
        pins |= {adder.sum: total, adder.carry: carry}
        connections = ", ".join(f".{pin}({bit})" for pin, bit in pins.items())
        self.lines.append(f"  {adder.cell} add_{total} ({connections});")
        if adder.inverts_sum != flips:
            total = _complement(total)
        if adder.inverts_carry != flips:
            carry = _complement(carry)
        return total, carry

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
            lines.append(f"  assign Y[{self.width - 1}:{begin}] = {' + '.join(terms)};")
        return lines
