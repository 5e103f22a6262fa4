"""Area and energy of arrays for signed digits against fixed point, and of other forms of them.

Run as ``python bench/bench_elp_bsd_hardware.py``.  All figures are of the same run, cell library,
clock, array of 16 x 16 and layer of the embedded network.  The area of a processing element is
that of one, the area of the array is divided by its elements.
"""

from collections.abc import Callable, Iterator

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed

from golden.elp_bsd_mac import ElpBsdMacSpec
from golden.fixed_mac import FixedMacSpec
from golden.formats import parse
from golden.inference import LayerStream, quantise
from golden.mac import ArraySpec
from hdl.datapath import Datapath
from hdl.elp_bsd import ElpBsdDatapath, ElpBsdProduct, digit_positions
from hdl.fixed import FixedDatapath
from narrowgauge.networks import digits
from narrowgauge.onnx_reader import read
from narrowgauge.tiles import cut_tiles
from synth.array import MappedArray
from synth.energy import unit_energy
from synth.library import load

#: Layer whose operands are run, the one with most products.
LAYER = "conv2"
CLOCK_NS = 2.0
LENGTH = 2048

#: Most area and energy for E4-2, as parts of those of fixed8, and the rival to beat on both.
AREA_TARGET, ENERGY_TARGET = 0.48, 0.60
RIVAL = "fixed8:weight_bits=4"
OURS = "elp_bsd4:set=E4-2,scale_pow2=yes"


class TextbookProduct(ElpBsdProduct):
    """Section 5 of the specification as it stands: shift, complement, add all carries as ones."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        total: Value = self.weight.negative_1
        for digit, positions in enumerate(digit_positions(self.spec)):
            negative = self.weight[f"negative_{digit}"]
            width = self.spec.bits + 1 + max(positions)
            shifted = Signal(signed(width), name=f"shifted_{digit}")
            low, high = (self.activation << position for position in positions)
            m.d.comb += shifted.eq(Mux(self.weight[f"select_{digit}"], high, low))
            total = total + (shifted ^ negative.replicate(width).as_signed())
        m.d.comb += [self.term.eq(total), self.carry.eq(self.weight.negative_0)]
        return m


class SelectFirstProduct(ElpBsdProduct):
    """Shifts before complements; a zero activation holds the selects, too."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        nonzero = self.activation[:-1].any()
        negative = [self.weight[f"negative_{digit}"] & nonzero for digit in range(2)]
        total: Value = Const(0, 1)
        for digit in range(2):
            select = self.weight[f"select_{digit}"] & nonzero
            shifted = Signal(signed(self.spec.bits + 3), name=f"shifted_{digit}")
            m.d.comb += shifted.eq(Mux(select, self.activation << 2, self.activation))
            total = total + ((shifted ^ negative[digit].replicate(11).as_signed()) << digit)
        m.d.comb += [self.term.eq(total + (negative[1] << 1)), self.carry.eq(negative[0])]
        return m


class TotalSignProduct(ElpBsdProduct):
    """Sum or difference of the digits' magnitudes, then the sign of the first digit."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        nonzero = self.activation[:-1].any()
        differ = (self.weight.negative_0 ^ self.weight.negative_1) & nonzero
        negative = self.weight.negative_1 & nonzero
        small = Signal(signed(self.spec.bits + 3))
        large = Signal(signed(self.spec.bits + 4))
        total = Signal(signed(self.spec.product_width))
        m.d.comb += [
            small.eq(Mux(self.weight.select_0, self.activation << 2, self.activation)),
            large.eq(Mux(self.weight.select_1, self.activation << 3, self.activation << 1)),
            total.eq(large + (small ^ differ.replicate(len(small)).as_signed()) + differ),
            self.term.eq(total ^ negative.replicate(len(total)).as_signed()),
            self.carry.eq(negative),
        ]
        return m


class GatedRowsProduct(ElpBsdProduct):
    """Four gated shifts for each digit, added or subtracted: a bit of 0 never moves."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        total: Value = Const(0, 1)
        for digit, positions in enumerate(digit_positions(self.spec)):
            negative = self.weight[f"negative_{digit}"]
            select = self.weight[f"select_{digit}"]
            for chosen, position in zip((~select, select), positions, strict=True):
                added, taken = (
                    (self.activation & gate.replicate(self.spec.bits + 1).as_signed()) << position
                    for gate in (chosen & ~negative, chosen & negative)
                )
                total = total + added - taken
        m.d.comb += [self.term.eq(total), self.carry.eq(0)]
        return m


class OtherDatapath(ElpBsdDatapath):
    """Signed digits with another product."""

    def __init__(self, spec: ElpBsdMacSpec, kind: Callable[[ElpBsdMacSpec], ElpBsdProduct]) -> None:
        super().__init__(spec)
        self.kind = kind

    def product(self, *, latency: int = 0) -> ElpBsdProduct:
        """Make it."""
        assert latency == 0
        return self.kind(self.spec)


class EdgeMacSpec(ElpBsdMacSpec):
    """Signed digits whose activations are extended where they enter the array."""

    decoded_in_elements = ()


def streams(name: str) -> list[LayerStream]:
    """Operands of the layer in a format."""
    embedded = digits()
    assert embedded.data.calibration is not None
    network = quantise(read(embedded.model_path), parse(name).system(), embedded.data.calibration)
    return [s for s in network.streams(embedded.data.images[::17]) if s.name == LAYER]


def cases() -> Iterator[tuple[str, Datapath, str, bool]]:
    """Title, datapath, format of the operands, and whether zeros are gated."""
    yield "fixed8", FixedDatapath(FixedMacSpec(bits=8, length=LENGTH)), "fixed8", False
    rival = FixedMacSpec(bits=8, weight_bits=4, length=LENGTH)
    yield RIVAL, FixedDatapath(rival), RIVAL, False
    for name in (
        OURS, "elp_bsd4:set=E4-2", "elp_bsd4", "elp_bsd3:set=E3-1", "elp_bsd6:set=E6-2",
    ):  # fmt: skip
        form = parse(name)
        yield name, ElpBsdDatapath(ElpBsdMacSpec.for_format(form, LENGTH)), name, False
    plain = ElpBsdMacSpec(length=LENGTH, multiplier=False)
    for title, kind in (
        ("section 5 to the letter", TextbookProduct),
        ("shifts first, gated", SelectFirstProduct),
        ("one sign for both digits", TotalSignProduct),
        ("rows of AND gates", GatedRowsProduct),
    ):
        yield f"E4-2, {title}", OtherDatapath(plain, kind), OURS, False
    edge = EdgeMacSpec(length=LENGTH, multiplier=False)
    yield "E4-2, extended at the edge", ElpBsdDatapath(edge), OURS, False
    yield "E4-2, zero gating", ElpBsdDatapath(plain), OURS, True


def main() -> None:
    """Print a line for each case, its split, and how far the targets are met."""
    library = load("nangate45")
    print(f"16x16 array, NanGate 45 nm, {CLOCK_NS} ns, length {LENGTH}, digits {LAYER}")
    print(f"{'':34} {'um2/PE':>7} {'ratio':>6} {'array':>7} {'ratio':>6} {'ns':>6} {'pJ':>7} ratio")
    rows: dict[str, tuple[float, float, float]] = {}
    for title, datapath, name, zero_gating in cases():
        spec = ArraySpec(mac=datapath.spec, rows=16, cols=16, zero_gating=zero_gating)
        array = MappedArray(datapath, spec, library, clock_ns=CLOCK_NS)
        parts = streams(name)
        batch = cut_tiles(spec, parts, parts[0].output_codec.spec, seed=1)
        split, _ = unit_energy(array, array.run(batch), batch.products)
        energy = sum(split.values())
        element, whole = array.units["pe"].mapped.area_um2, array.area_um2 / 256
        rows[title] = element, whole, energy
        if title == OURS:
            state = sum(split[kind] for kind in ("registers", "clock", "leakage"))
        first = rows["fixed8"]
        print(
            f"{title:34} {element:7.1f} {element / first[0]:6.3f} {whole:7.1f} "
            f"{whole / first[1]:6.3f} {array.critical_path_ns:6.3f} {energy:7.4f} "
            f"{energy / first[2]:5.3f}"
        )
        areas = {kind: area / 256 for kind, area in array.area_breakdown_um2().items()}
        print("    um2  " + "  ".join(f"{kind} {area:.1f}" for kind, area in areas.items()))
        print("    pJ   " + "  ".join(f"{kind} {value:.4f}" for kind, value in split.items()))
    for index, what, target in (
        (0, "area of an element", AREA_TARGET),
        (2, "energy", ENERGY_TARGET),
    ):
        ratio = rows[OURS][index] / rows["fixed8"][index]
        verdict = "met" if ratio <= target else "missed"
        print(f"{OURS}: {what} {ratio:.3f} of fixed8, target {target}: {verdict}")
    print(f"{OURS}: registers, clock and leakage alone {state / rows['fixed8'][2]:.3f} of fixed8")
    for index, what in enumerate(("area of an element", "area of the array", "energy")):
        ratio = rows[OURS][index] / rows[RIVAL][index]
        print(f"{OURS}: {what} {ratio:.3f} of {RIVAL}: {'below' if ratio < 1 else 'not below'}")


if __name__ == "__main__":
    main()
