"""All designs by name: what ``generate``, ``test`` and ``formats`` know of.

A number system is added by its entry in ``SYSTEMS``, a unit by its entry in ``UNITS``; a design is
a unit of a number system, and everything that is asked of it follows from these two entries.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy.typing as npt

from golden.dybit_fused import DybitFusedMacSpec
from golden.dybit_mac import DybitMacSpec
from golden.elp_bsd_mac import ElpBsdMacSpec
from golden.fixed_mac import FixedMacSpec
from golden.formats import parse
from golden.mac import ArraySpec, MacSpec
from golden.tapered_mac import TaperedMacSpec
from golden.weight_pool import WeightPoolFormat, WeightPoolSpec
from golden.weight_pool_engine import EngineSpec
from hdl.abfp import AbfpDatapath, AbfpTile
from hdl.abfp_units import AbfpConverter
from hdl.array import SystolicArray
from hdl.bfloat16_mac import Bfloat16Datapath, Bfloat16Mac
from hdl.datapath import Datapath
from hdl.dybit import DybitDatapath
from hdl.dybit_fused import DybitFusedDatapath
from hdl.elp_bsd import ElpBsdDatapath
from hdl.fixed import FixedDatapath
from hdl.mac import Mac
from hdl.tapered import TaperedDatapath
from hdl.weight_pool import WeightPoolDatapath, WeightPoolEngine
from narrowgauge.arrays import load_arrays

__all__ = [
    "DESIGNS",
    "SYSTEMS",
    "UNITS",
    "Design",
    "Options",
    "System",
    "Unit",
    "array_spec",
    "choose",
    "engine_spec",
    "find",
]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Hardware parameters that a format does not have; see :class:`golden.mac.ArraySpec`.

    ``modes`` are those of :class:`golden.dybit_fused.DybitFusedMacSpec`, joined by hyphens;
    ``outputs`` and ``requantisers`` are of :class:`golden.weight_pool_engine.EngineSpec`, and
    ``pool`` is a file with the array ``pool``, [entries, group], that its table is made of.
    """

    rows: int = 16
    cols: int = 16
    length: int = 2048
    decoders: str = "edge"
    zero_gating: bool = False
    lanes: int = 8
    outputs: int = 256
    requantisers: int = 1
    pipelined: bool = False
    carry_save: bool = False
    modes: str = "8x8-4x4-2x2"
    pool: str = ""


def _no_datapath(form: Any, length: int) -> Datapath:
    raise ValueError(f"format must be of a number system with an array, not {form}")


@dataclass(frozen=True, kw_only=True)
class System:
    """A number system, and the hardware that there is for it.

    Attributes
    ----------
    title : str
        One line for tables.
    presets : tuple of str
        Format strings, the default one first.
    units : tuple of str
        Keys of ``UNITS`` that it has.
    datapath : callable
        Makes the arithmetic for a format and a length of dot products, or what has the sizes of a
        unit of its own; ValueError without units.
    """

    title: str
    presets: tuple[str, ...]
    units: tuple[str, ...] = ()
    datapath: Callable[[Any, int], Any] = _no_datapath


#: One line per number system, by stem.
SYSTEMS: dict[str, System] = {
    "fixed": System(
        title="two's-complement fixed point (baseline)",
        presets=("fixed8", "fixed6", "fixed8:weight_bits=4", "fixed4", "fixed16"),
        units=("encoder", "mac", "array"),  # a code is its own operand
        datapath=lambda form, length: FixedDatapath(FixedMacSpec.for_format(form, length)),
    ),
    "tapered": System(
        title="tapered fixed point TFX(n, IS, SC) of TENT",
        presets=("tapered8:runs=4-7", "tapered8", "tapered6", "tapered5"),
        units=("decoder", "encoder", "mac", "array"),
        datapath=lambda form, length: TaperedDatapath(TaperedMacSpec.for_format(form, length)),
    ),
    "dybit": System(
        title="DyBit-style variable-length numbers, reconstructed",
        presets=("dybit8", "dybit4", "dybit8:weight_bits=4", "dybit4:weight_bits=2"),
        units=(
            *("decoder", "activation_decoder", "encoder", "mac", "array"),
            *("fused_mac", "fused_array"),
        ),
        datapath=lambda form, length: DybitDatapath(DybitMacSpec.for_format(form, length)),
    ),
    "elp_bsd": System(
        title="encoded binary signed digits, CoNLoCNN-style, reconstructed",
        presets=(
            "elp_bsd4:set=E4-2",
            "elp_bsd4:set=E4-2,scale_pow2=yes",
            "elp_bsd4",
            "elp_bsd6:set=E6-2",
            "elp_bsd3:set=E3-1",
        ),
        units=("activation_decoder", "encoder", "mac", "array"),
        datapath=lambda form, length: ElpBsdDatapath(ElpBsdMacSpec.for_format(form, length)),
    ),
    "abfp": System(
        title="adaptive block floating point with gain",
        presets=(
            "abfp8",
            "abfp8:tile=32",
            "abfp6",
            "abfp8:exp_only=yes",
            "abfp8:tile=8,noise_bits=8",
        ),
        units=("tile", "converter", "bfloat16_mac"),
        datapath=lambda form, length: AbfpDatapath(form.tile_spec(), length),
    ),
    "weight_pool": System(
        title="bit-serial weight pools",
        presets=("weight_pool64", "weight_pool32", "weight_pool64:layout=nibble"),
        units=("engine",),
        datapath=lambda form, length: WeightPoolDatapath(EngineSpec.for_format(form, length)),
    ),
}


def _no_attributes(component: Any) -> dict[str, Any]:
    return {}


def _no_arrays(spec: str) -> dict[str, npt.NDArray[Any]]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A kind of hardware that number systems are offered as.

    Attributes
    ----------
    description : str
        One line for tables.
    bench : str
        Module of the cocotb test bench.
    build : callable
        Makes the component of what :attr:`System.datapath` returned and :class:`Options`.
    options : tuple of str
        Fields of :class:`Options` that it heeds.
    attributes : callable
        What the bench is told that the built component states of itself, as JSON can say it.
    arrays : callable
        Real tensors for the bench, by name, for a format string; none if there are none.
    sizes : tuple of Options
        What the regression builds for the first preset of a number system.  The other presets get
        the first of these, because the structure does not depend on the format.
    gate_sizes : tuple of Options
        What it maps to cells; small, for mapping and the simulation of cells take long.
    gate_spec : str, optional
        Format that it maps; the first preset by default.
    one_format : bool
        Whether it is the same for all formats, so that the regression tries the first preset alone.
    datapath : callable, optional
        Used in place of :attr:`System.datapath`, of a format and :class:`Options`.
    model : str, optional
        File of :mod:`sim` with the bench's ``make_system``; by default that of the number system.
    """

    description: str
    bench: str
    build: Callable[[Any, Options], Any]
    options: tuple[str, ...] = ("length",)
    attributes: Callable[[Any], dict[str, Any]] = _no_attributes
    arrays: Callable[[str], dict[str, npt.NDArray[Any]]] = _no_arrays
    sizes: tuple[Options, ...] = (Options(),)
    gate_sizes: tuple[Options, ...] = (Options(),)
    gate_spec: str | None = None
    one_format: bool = False
    datapath: Callable[[Any, Options], Any] | None = None
    model: str | None = None

    def label(self, options: Options) -> str:
        """Sizes, and what else is not as usual, in one word; empty for a unit of one size."""
        words = []
        for field in fields(options):
            value = getattr(options, field.name)
            if field.name not in self.options or field.name == "cols":
                continue
            if field.name == "rows":
                words.append(f"{value}x{options.cols}" if "cols" in self.options else f"{value}")
            elif value != field.default:
                mark = value if isinstance(value, str) else f"{field.name}={value}"
                words.append(field.name if value is True else mark)
        others = {*self.sizes, *self.gate_sizes} - {options}
        return "-".join(words) or ("default" if others else "")


@dataclass(frozen=True, kw_only=True)
class Design:
    """A unit of a number system, which can be generated, tested and measured.

    Attributes
    ----------
    name : str
        ``<stem>-<unit>``.
    stem : str
        Number system.
    unit : Unit
        What kind of hardware it is.
    """

    name: str
    stem: str
    unit: Unit

    @property
    def description(self) -> str:
        """One line for tables."""
        return self.unit.description

    @property
    def presets(self) -> tuple[str, ...]:
        """Format strings, the default one first."""
        return SYSTEMS[self.stem].presets

    @property
    def model(self) -> str:
        """File of :mod:`sim` that has the number system for the bench."""
        return self.unit.model or self.stem

    def datapath(self, form: Any, options: Options) -> Any:
        """Arithmetic for a format; its ``spec`` is what the bench is told of the number system."""
        if self.unit.datapath is not None:
            return self.unit.datapath(form, options)
        return SYSTEMS[self.stem].datapath(form, options.length)

    def build(self, form: Any, options: Options) -> Any:
        """Make the component."""
        return self.unit.build(self.datapath(form, options), options)


def array_spec(mac: MacSpec, options: Options) -> ArraySpec:
    """Systolic array of some multiply-accumulate unit, with some hardware parameters."""
    return ArraySpec(
        mac=mac,
        rows=options.rows,
        cols=options.cols,
        decoders=options.decoders,
        zero_gating=options.zero_gating,
        pipelined=options.pipelined,
        carry_save=options.carry_save,
    )


def _array(datapath: Datapath, options: Options) -> SystolicArray:
    return SystolicArray(datapath, array_spec(datapath.spec, options))


def _encoder(datapath: Datapath, options: Options) -> Any:
    latency = datapath.encoder_latency(pipelined=True) if options.pipelined else 0
    return datapath.encoder(latency=latency)


#: Most bytes of a file with a pool; that of the largest one is a small part of it.
MAX_POOL_BYTES = 1 << 26

#: Numbers of products for which the cycles of a tile are stated to the bench.
TILE_LENGTHS = (3, 1, 7, 2, 3)


def _array_attributes(array: SystolicArray) -> dict[str, Any]:
    return {
        "rows": array.spec.rows,
        "cols": array.spec.cols,
        "tiles": [[length, array.cycles(length)] for length in TILE_LENGTHS],
    }


def _layer_tensors(spec: str) -> dict[str, npt.NDArray[Any]]:
    # Reading networks takes as long to load as all of this file.
    from narrowgauge.tensors import layer_tensors

    return layer_tensors(spec)


def _pool_tensors(spec: str) -> dict[str, npt.NDArray[Any]]:
    from narrowgauge.tensors import pool_tensors

    return pool_tensors(spec)


def engine_spec(form: Any, options: Options) -> EngineSpec:
    """Look-up engine of some sizes for a format."""
    return EngineSpec.for_format(
        form,
        options.length,
        lanes=options.lanes,
        max_outputs=options.outputs,
        requantisers=options.requantisers,
        pipelined=options.pipelined,
    )


def _pool(form: WeightPoolFormat, path: str) -> WeightPoolSpec | None:
    if not path:
        return None
    arrays = load_arrays("pool", path, single="pool", max_bytes=MAX_POOL_BYTES)
    if "pool" not in arrays:
        raise ValueError(f"pool must be a file with the array pool, not {path!r}")
    return form.with_pool(arrays["pool"])


def _engine_attributes(engine: WeightPoolEngine) -> dict[str, Any]:
    spec = engine.spec
    return {"latency": [spec.latency(bits) for bits in range(1, spec.max_act_bits + 1)]}


def _vector_tensors(spec: str) -> dict[str, npt.NDArray[Any]]:
    from narrowgauge.tensors import vector_tensors

    return vector_tensors(spec)


def _tile_attributes(tile: AbfpTile) -> dict[str, Any]:
    return {name: getattr(tile, name) for name in ("rows", "lanes", "max_tiles", "interval")}


def _fused(form: Any, options: Options) -> DybitFusedDatapath:
    """Hardware for all formats of dybit; ``form`` is that of the layers that the bench runs."""
    modes = tuple(options.modes.split("-"))
    return DybitFusedDatapath(DybitFusedMacSpec(length=options.length, modes=modes))


#: What a number system can be offered as, by the word after the hyphen of a design's name.
UNITS: dict[str, Unit] = {
    "decoder": Unit(
        description="combinational decoder of one code",
        bench="sim.tb_decoder",
        build=lambda datapath, options: datapath.decoder("weight"),
    ),
    "activation_decoder": Unit(
        description="combinational decoder of one activation, where it is not that of a weight",
        bench="sim.tb_decoder",
        build=lambda datapath, options: datapath.decoder("activation"),
    ),
    "encoder": Unit(
        description="encoder: one rounding of an exact sum",
        bench="sim.tb_encoder",
        build=_encoder,
        options=("length", "pipelined"),
        attributes=lambda encoder: {"latency": encoder.latency},
        sizes=(Options(), Options(pipelined=True)),
    ),
    "mac": Unit(
        description="streaming multiply-accumulate: decode, multiply, sum exactly, encode once",
        bench="sim.tb_mac",
        build=lambda datapath, options: Mac(datapath, pipelined=options.pipelined),
        options=("length", "pipelined"),
        attributes=lambda mac: {"latency": mac.latency},
        sizes=(Options(), Options(pipelined=True)),
    ),
    "array": Unit(
        description="output-stationary systolic array with bias, ReLU and encoders",
        bench="sim.tb_array",
        build=_array,
        options=(
            *("rows", "cols", "length", "decoders", "zero_gating"),
            *("pipelined", "carry_save"),
        ),
        attributes=_array_attributes,
        arrays=_layer_tensors,
        sizes=(
            Options(rows=4, cols=4),
            Options(rows=1, cols=3),
            Options(rows=3, cols=1, zero_gating=True),
            Options(rows=2, cols=5, decoders="pe"),
            Options(rows=3, cols=2, decoders="pe", zero_gating=True),
            Options(rows=9, cols=2, pipelined=True),  # more rows than drains hold
            Options(rows=3, cols=2, decoders="pe", zero_gating=True, pipelined=True),
            Options(rows=2, cols=2, zero_gating=True, pipelined=True, carry_save=True),
            Options(rows=16, cols=16),
        ),
        gate_sizes=(Options(rows=2, cols=3),),
    ),
    "fused_mac": Unit(
        description="streaming multiply-accumulate of one wide pair or several narrow ones a cycle",
        bench="sim.tb_mac",
        build=lambda datapath, options: Mac(datapath, pipelined=options.pipelined),
        options=("length", "pipelined", "modes"),
        attributes=lambda mac: {"latency": mac.latency},
        sizes=(
            Options(modes="8x8-4x8-4x4-2x2"),
            Options(modes="8x8-4x4", pipelined=True),
            Options(pipelined=True),
        ),
        one_format=True,
        datapath=_fused,
        model="dybit_fused",
    ),
    "fused_array": Unit(
        description="systolic array that multiplies one wide pair or several narrow ones a cycle",
        bench="sim.tb_array",
        build=_array,
        options=(
            *("rows", "cols", "length", "decoders", "zero_gating"),
            *("pipelined", "carry_save", "modes"),
        ),
        attributes=_array_attributes,
        arrays=_layer_tensors,
        sizes=(
            Options(rows=3, cols=4),
            Options(rows=2, cols=3, modes="8x8-4x8-4x4", pipelined=True),
            Options(rows=2, cols=2, pipelined=True),
            Options(rows=1, cols=2, modes="8x8-4x4", zero_gating=True),
            Options(rows=2, cols=1, modes="8x8-4x8-4x4-2x2", decoders="pe"),
            Options(rows=2, cols=2, zero_gating=True, pipelined=True, carry_save=True),
        ),
        gate_sizes=(Options(rows=1, cols=2),),
        datapath=_fused,
        model="dybit_fused",
    ),
    "engine": Unit(
        description="bit-serial look-up engine: a table row per plane, lanes that gather by index",
        bench="sim.tb_weight_pool",
        build=lambda datapath, options: WeightPoolEngine(datapath.spec, datapath.pool),
        options=("length", "lanes", "outputs", "requantisers", "pipelined", "pool"),
        attributes=_engine_attributes,
        arrays=_pool_tensors,
        sizes=(
            Options(),
            Options(lanes=3, outputs=64, pipelined=True),
            Options(lanes=16, outputs=64, requantisers=4),
        ),
        gate_sizes=(Options(lanes=2, outputs=5, length=40),),
        # Memories become registers.
        gate_spec="weight_pool3:group=4,layout=nibble,act_bits=3",
        datapath=lambda form, options: WeightPoolDatapath(
            engine_spec(form, options), _pool(form, options.pool)
        ),
    ),
    "tile": Unit(
        description="rows of dot products with shared scales, from bfloat16 through an ADC to "
        "bfloat16",
        bench="sim.tb_abfp",
        build=lambda datapath, options: datapath.tile(
            options.rows, options.lanes, options.pipelined
        ),
        options=("rows", "lanes", "length", "pipelined"),
        attributes=_tile_attributes,
        arrays=_vector_tensors,
        sizes=(
            Options(rows=4, lanes=8, length=256),
            Options(rows=3, lanes=2, length=300, pipelined=True),
            Options(rows=1, lanes=128, length=128),
            Options(rows=16, lanes=8, length=256),
        ),
        gate_sizes=(Options(rows=2, lanes=2, length=16),),
        gate_spec="abfp8:tile=8,noise_bits=8",
    ),
    "converter": Unit(
        description="combinational gain and ADC of a tile, with noise if the format has it",
        bench="sim.tb_abfp_converter",
        build=lambda datapath, options: AbfpConverter(datapath.spec),
        gate_spec="abfp8:tile=8,noise_bits=8",
    ),
    "bfloat16_mac": Unit(
        description="bfloat16 multiply-accumulate in float32, the floating baseline; of no format",
        bench="sim.tb_bfloat16_mac",
        build=lambda datapath, options: Bfloat16Mac(options.pipelined),
        options=("pipelined",),
        attributes=lambda mac: {"interleaved": mac.interleaved, "latency": mac.latency},
        sizes=(Options(), Options(pipelined=True)),
        one_format=True,
        datapath=lambda form, options: Bfloat16Datapath(),
        model="bfloat16_mac",
    ),
}


#: All designs by name.
DESIGNS: dict[str, Design] = {
    f"{stem}-{unit}": Design(name=f"{stem}-{unit}", stem=stem, unit=UNITS[unit])
    for stem, system in SYSTEMS.items()
    for unit in system.units
}


def find(name: str) -> Design:
    """Design called ``name``.

    Raises
    ------
    ValueError
        If there is none.
    """
    if name not in DESIGNS:
        raise ValueError(f"design must be one of {', '.join(DESIGNS)}, not {name!r}")
    return DESIGNS[name]


def choose(
    name: str, spec: str | None, choices: Mapping[str, Any], **defaults: Any
) -> tuple[Design, Any, Options]:
    """Find what a user asks for.

    Parameters
    ----------
    name : str
        Name of a design.
    spec : str, optional
        Format string; the first preset of the design by default.
    choices : mapping of str to object
        Fields of :class:`Options`; None, and False, are those that are not given.
    **defaults
        Other defaults than those of :class:`Options`, for units that heed them.

    Returns
    -------
    design : Design
    form : Format
    options : Options

    Raises
    ------
    ValueError
        If there is no such design, the format is of another number system, or a choice is not of
        the design.
    """
    design = find(name)
    form = parse(spec or design.presets[0])
    if form.stem != design.stem:
        raise ValueError(f"spec must be a format of {design.stem} for {design.name}, not {form}")
    given = {
        option: value
        for option, value in choices.items()
        if value is not None and value is not False
    }
    heeded = design.unit.options
    for option in given:
        if option not in heeded:
            raise ValueError(
                f"{option} must be left out for {design.name}, which has no such option"
            )
    usual = {option: value for option, value in defaults.items() if option in heeded}
    return design, form, Options(**(usual | given))
