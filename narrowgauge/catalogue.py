"""All designs by name: what ``generate``, ``test`` and ``formats`` know of.

A number system is added by its line in ``SYSTEMS``; its designs follow from the units that every
number system has.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from golden.dybit_mac import DybitMacSpec
from golden.elp_bsd_mac import ElpBsdMacSpec
from golden.fixed_mac import FixedMacSpec
from golden.mac import ArraySpec
from golden.tapered_mac import TaperedMacSpec
from golden.weight_pool_engine import EngineSpec
from hdl.array import SystolicArray
from hdl.datapath import Datapath
from hdl.dybit import DybitDatapath
from hdl.elp_bsd import ElpBsdDatapath
from hdl.fixed import FixedDatapath
from hdl.mac import Mac
from hdl.tapered import TaperedDatapath
from hdl.weight_pool import WeightPoolDatapath, WeightPoolEngine

__all__ = ["DESIGNS", "SYSTEMS", "Design", "Options", "System", "find"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Hardware parameters that a format does not have; see :class:`golden.mac.ArraySpec`."""

    rows: int = 16
    cols: int = 16
    length: int = 2048
    decoders: str = "edge"
    zero_gating: bool = False


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
        units=("decoder", "activation_decoder", "encoder", "mac", "array"),
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
        presets=("abfp8", "abfp8:tile=32", "abfp6", "abfp8:exp_only=yes"),
    ),
    "weight_pool": System(
        title="bit-serial weight pools",
        presets=("weight_pool64", "weight_pool32", "weight_pool64:layout=nibble"),
        units=("engine",),
        datapath=lambda form, length: WeightPoolDatapath(EngineSpec.for_format(form, length)),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Design:
    """A unit that can be generated, tested and measured.

    Attributes
    ----------
    name : str
        ``<stem>-<unit>``.
    stem : str
        Number system.
    unit : str
        Key of ``UNITS``.
    description : str
        One line for tables.
    presets : tuple of str
        Format strings, the default one first.
    bench : str
        Module of the cocotb test bench.
    build : callable
        Makes the component for a format and options.
    """

    name: str
    stem: str
    unit: str
    description: str
    presets: tuple[str, ...]
    bench: str
    build: Callable[[Any, Options], Any]


def _array(datapath: Datapath, options: Options) -> SystolicArray:
    spec = ArraySpec(
        mac=datapath.spec,
        rows=options.rows,
        cols=options.cols,
        decoders=options.decoders,
        zero_gating=options.zero_gating,
    )
    return SystolicArray(datapath, spec)


#: What a number system can be offered as: description, bench and builder by unit.
UNITS: dict[str, tuple[str, str, Callable[[Any, Options], Any]]] = {
    "decoder": (
        "combinational decoder of one code",
        "sim.tb_decoder",
        lambda datapath, options: datapath.decoder("weight"),
    ),
    "activation_decoder": (
        "combinational decoder of one activation, where it is not that of a weight",
        "sim.tb_decoder",
        lambda datapath, options: datapath.decoder("activation"),
    ),
    "encoder": (
        "combinational encoder: one rounding of an exact sum",
        "sim.tb_encoder",
        lambda datapath, options: datapath.encoder(),
    ),
    "mac": (
        "streaming multiply-accumulate: decode, multiply, sum exactly, encode once",
        "sim.tb_mac",
        lambda datapath, options: Mac(datapath),
    ),
    "array": (
        "output-stationary systolic array with bias, ReLU and encoders",
        "sim.tb_array",
        _array,
    ),
    "engine": (
        "bit-serial look-up engine: a table row per plane, lanes that gather by index",
        "sim.tb_weight_pool",
        lambda datapath, options: WeightPoolEngine(datapath.spec),
    ),
}


def _design(stem: str, unit: str) -> Design:
    system = SYSTEMS[stem]
    description, bench, build = UNITS[unit]
    return Design(
        name=f"{stem}-{unit}",
        stem=stem,
        unit=unit,
        description=description,
        presets=system.presets,
        bench=bench,
        build=lambda form, options: build(system.datapath(form, options.length), options),
    )


#: All designs by name.
DESIGNS: dict[str, Design] = {
    f"{stem}-{unit}": _design(stem, unit)
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
