"""Area and energy of tapered multiply-accumulate units: forms of operands, of sign and of shift.

Run as ``python bench/bench_tapered_hardware.py``.  All cases are of the same run: cell library,
clock, array of 16 x 16 with decoders at the edge, layer of the embedded network, and accumulators
of 32 bits for fixed point, too.  ``--exact`` sizes accumulators for 2048 products instead.
"""

import argparse
from abc import abstractmethod
from collections.abc import Callable, Iterator

from amaranth.hdl import Cat, Module, Mux, ShapeLike, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from bench_array import CLOCK_NS, LAYER, measure, network

from golden.mac import Operand
from golden.tapered_mac import TaperedMacSpec
from hdl.datapath import Datapath
from hdl.fixed import FixedDatapath, FixedMacSpec
from hdl.tapered import TaperedDatapath, TaperedDecoder, TaperedProduct

NAME = "tapered8:runs=4-7"
AREA_TARGET, ENERGY_TARGET = 0.90, 1.10

#: Products that make accumulators of 32 bits: of fixed point, and of tapered fixed point.
LENGTHS = (1 << 16, 8192)


class OtherProduct(TaperedProduct):
    """Product whose sign and shift are made in another way."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        activation, weight = self.activation, self.weight
        product = Signal(2 * self.spec.significand_width)
        negative = Signal()
        m.d.comb += [
            product.eq(activation.significand * weight.significand),
            negative.eq((activation.negative ^ weight.negative) & activation.significand.any()),
            self.carry.eq(negative),
        ]
        self.finish(m, product, negative)
        return m

    @abstractmethod
    def finish(self, m: Module, product: Signal, negative: Signal) -> None:
        """Drive ``term``."""

    def complement(self, m: Module, magnitude: Value, negative: Value) -> None:
        """Drive ``term`` with the one's complement of ``magnitude`` where it is negative."""
        m.d.comb += self.term.eq(magnitude ^ negative.replicate(len(self.term)))


class SignBeforeShift(OtherProduct):
    """Complement of the product; the shifter moves copies of the sign in."""

    def finish(self, m: Module, product: Signal, negative: Signal) -> None:
        amount = Signal(3)
        moved: Value = Cat(product ^ negative.replicate(len(product)), negative).as_signed()
        m.d.comb += amount.eq(self.activation.shift + self.weight.shift)
        for place in range(len(amount)):
            filled = Cat(negative.replicate(1 << place), moved).as_signed()
            stage = Signal(signed(len(filled)), name=f"stage_{place}")
            m.d.comb += stage.eq(Mux(amount[place], filled, moved))
            moved = stage
        m.d.comb += self.term.eq(moved)


class ShiftTwice(OtherProduct):
    """A shifter for each operand's shift, without an adder of shifts."""

    def finish(self, m: Module, product: Signal, negative: Signal) -> None:
        moved: Value = product
        for place in range(2):
            for role in ("weight", "activation"):
                stage = Signal(len(self.term) - 1, name=f"{role}_stage_{place}")
                select = getattr(self, role).shift[place]
                m.d.comb += stage.eq(Mux(select, moved << (1 << place), moved))
                moved = stage
        self.complement(m, moved, negative)


class LargeShiftFirst(OtherProduct):
    """Shift by 4 before those by 2 and by 1."""

    def finish(self, m: Module, product: Signal, negative: Signal) -> None:
        amount = Signal(3)
        m.d.comb += amount.eq(self.activation.shift + self.weight.shift)
        moved: Value = product
        for place in reversed(range(3)):
            stage = Signal(len(self.term) - 1, name=f"stage_{place}")
            m.d.comb += stage.eq(Mux(amount[place], moved << (1 << place), moved))
            moved = stage
        self.complement(m, moved, negative)


class SignOfZero(OtherProduct):
    """A product of zero is complemented like any other."""

    def finish(self, m: Module, product: Signal, negative: Signal) -> None:
        sign = self.activation.negative ^ self.weight.negative
        m.d.comb += self.carry.eq(sign)
        self.complement(m, product << (self.activation.shift + self.weight.shift), sign)


class EvenTwice(OtherProduct):
    """Even shifts, one for each operand."""

    def finish(self, m: Module, product: Signal, negative: Signal) -> None:
        once = Mux(self.activation.shift, product << 2, product)
        self.complement(m, Mux(self.weight.shift, once << 2, once), negative)


class EvenOneHot(OtherProduct):
    """Even shifts by three AND gates and an OR gate for each bit."""

    def finish(self, m: Module, product: Signal, negative: Signal) -> None:
        first, second = self.activation.shift, self.weight.shift
        magnitude: Value = Signal(len(self.term) - 1)
        for step, select in enumerate((~(first | second), first ^ second, first & second)):
            gated = (product << 2 * step) & select.replicate(len(self.term) - 1)
            magnitude = gated if step == 0 else magnitude | gated
        self.complement(m, magnitude, negative)


def signed_shape(spec: TaperedMacSpec) -> data.StructLayout:
    """Shape of an operand with a significand in two's complement."""
    return data.StructLayout(
        {
            "significand": signed(spec.significand_width + 1),
            "shift": unsigned(spec.shift_width),
        }
    )


class SignedDecoder(wiring.Component):
    """Decoder to a significand in two's complement."""

    def __init__(self, spec: TaperedMacSpec) -> None:
        self.spec = spec
        self.module_name = "tapered_signed_decoder"
        super().__init__(
            {
                "code": In(spec.bits),
                "run_limit": In(spec.run_width),
                "operand": Out(signed_shape(spec)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.decoder = decoder = TaperedDecoder(self.spec)
        found = decoder.operand
        m.d.comb += [
            decoder.code.eq(self.code),
            decoder.run_limit.eq(self.run_limit),
            self.operand.shift.eq(found.shift),
            self.operand.significand.eq(Mux(found.negative, -found.significand, found.significand)),
        ]
        return m


class SignedProduct(wiring.Component):
    """Product of significands in two's complement, shifted with its sign."""

    def __init__(self, spec: TaperedMacSpec) -> None:
        self.spec = spec
        self.module_name = "tapered_signed_product"
        super().__init__(
            {
                "activation": In(signed_shape(spec)),
                "weight": In(signed_shape(spec)),
                "term": Out(signed(spec.product_width)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        product = self.activation.significand * self.weight.significand
        m.d.comb += self.term.eq(product << (self.activation.shift + self.weight.shift))
        return m


class OtherDatapath(TaperedDatapath):
    """Tapered fixed point with another product."""

    def __init__(self, spec: TaperedMacSpec, kind: Callable[[TaperedMacSpec], object]) -> None:
        super().__init__(spec)
        self.kind = kind

    def product(self, *, latency: int = 0) -> object:
        """Make it."""
        assert latency == 0
        return self.kind(self.spec)


class SignedDatapath(OtherDatapath):
    """Tapered fixed point with operands in two's complement."""

    def operand(self, role: Operand) -> ShapeLike:
        """Shape of a decoded operand."""
        return signed_shape(self.spec)

    def decoder(self, role: Operand) -> SignedDecoder:
        """Make the decoder."""
        return SignedDecoder(self.spec)


def cases(lengths: tuple[int, int]) -> Iterator[tuple[str, Datapath, str, dict[str, object]]]:
    """Title, datapath, format of the operands and options of the array."""
    fixed = FixedMacSpec(bits=8, length=lengths[0])
    yield "fixed8", FixedDatapath(fixed), "fixed8", {}

    def spec(form: str) -> TaperedMacSpec:
        return TaperedMacSpec(bits=8, length=lengths[1], min_run=4, max_run=7, form=form)

    plain, even = spec("significand"), spec("even")
    yield "7x7, even shifts (default)", TaperedDatapath(even), NAME, {}
    yield "6x6", TaperedDatapath(plain), NAME, {}
    yield "11x11, integers", TaperedDatapath(spec("integer")), NAME, {}
    yield "7x7, AND-OR shifter", OtherDatapath(even, EvenOneHot), NAME, {}
    yield "7x7, shift for each operand", OtherDatapath(even, EvenTwice), NAME, {}
    yield "6x6, shift for each operand", OtherDatapath(plain, ShiftTwice), NAME, {}
    yield "6x6, shift by 4 first", OtherDatapath(plain, LargeShiftFirst), NAME, {}
    yield "6x6, sign before the shifter", OtherDatapath(plain, SignBeforeShift), NAME, {}
    yield "6x6, sign of zeros, too", OtherDatapath(plain, SignOfZero), NAME, {}
    yield "7x7, two's complement", SignedDatapath(plain, SignedProduct), NAME, {}
    yield "default, zero gating", TaperedDatapath(even), NAME, {"zero_gating": True}
    yield "fixed8, zero gating", FixedDatapath(fixed), "fixed8", {"zero_gating": True}
    yield "default, decoders in PE", TaperedDatapath(even), NAME, {"decoders": "pe"}


def main(lengths: tuple[int, int]) -> None:
    """Print a line for each case, its split, and how far the targets are met."""
    networks = {name: network(name) for name in ("fixed8", NAME)}
    print(f"16x16 array, NanGate 45 nm, {CLOCK_NS} ns, digits {LAYER}, products {lengths}")
    print(f"{'':30} {'bits':>4} {'um2/PE':>7} {'ratio':>6} {'ns':>6} {'pJ/MAC':>7} {'ratio':>6}")
    rows: list[tuple[float, float]] = []
    for title, datapath, name, options in cases(lengths):
        area, delay, energy, split = measure(datapath, networks[name], **options)
        rows.append((area, energy))
        print(
            f"{title:30} {datapath.spec.accumulator_width:4} {area:7.1f} "
            f"{area / rows[0][0]:6.3f} {delay:6.3f} {energy:7.4f} {energy / rows[0][1]:6.3f}"
        )
        print("    " + "  ".join(f"{kind} {value:.3f}" for kind, value in split.items()))
    for what, index, target in (("area", 0, AREA_TARGET), ("energy", 1, ENERGY_TARGET)):
        ratio = rows[1][index] / rows[0][index]
        print(f"{what} {ratio:.3f} of fixed8, target {target}: "
              f"{'met' if ratio <= target else 'missed'}")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exact", action="store_true", help="accumulators for 2048 products")
    main((2048, 2048) if parser.parse_args().exact else LENGTHS)
