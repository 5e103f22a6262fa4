"""What the inputs of a foreign design do while it is measured: rows of a file, or random numbers.

A port gets one number each cycle, or several of equal width side by side, the first one in the
least significant bits.  Independent streams run beside each other.
"""

import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from narrowgauge.arrays import load_arrays
from synth.activity import Words, pack

__all__ = ["DISTRIBUTIONS", "Distribution", "Stimuli", "Stream", "load_stimuli", "random_stimuli"]

DISTRIBUTIONS = ("uniform", "normal", "sparse", "counter")

#: Most numbers of all ports together, which is half a gigabyte.
MAX_NUMBERS = 1 << 26
#: Most bits of a number.
MAX_BITS = 64
#: Floats hold no more bits exactly.
MAX_NORMAL_BITS = 53
#: Standard deviations of the normal distribution from 0 to the largest number.
NORMAL_SIGMAS = 4

Numbers = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Distribution of the random numbers of a port.

    Parameters
    ----------
    name : str
        One of `DISTRIBUTIONS`.  ``"uniform"``: every code alike.  ``"normal"``: two's complement
        with a standard deviation of a quarter of the largest number, cut off there.  ``"sparse"``:
        0 in half of the cycles, else uniform.  ``"counter"``: one more in each cycle, from a
        uniform number.
    bits : int or None
        Bits of a number, where a port has several side by side; by default the whole port, and
        single bits in a port of more than 64.

    Raises
    ------
    ValueError
        If one of them is out of range.
    """

    name: str = "uniform"
    bits: int | None = None

    def __post_init__(self) -> None:
        if self.name not in DISTRIBUTIONS:
            raise ValueError(
                f"distribution must be one of {', '.join(DISTRIBUTIONS)}, not {self.name!r}"
            )
        most = MAX_NORMAL_BITS if self.name == "normal" else MAX_BITS
        if self.bits is not None and not 1 <= self.bits <= most:
            raise ValueError(
                f"bits of a number must be between 1 and {most} for distribution {self.name}, "
                f"not {self.bits}"
            )

    @classmethod
    def parse(cls, text: str) -> "Distribution":
        """Read ``NAME`` or ``NAME:BITS``.

        Raises
        ------
        ValueError
            If it is something else.
        """
        match = re.fullmatch(r"([a-z]+)(?::([0-9]{1,4}))?", text)
        if match is None:
            raise ValueError(f"distribution must be NAME or NAME:BITS, not {text!r}")
        return cls(name=match[1], bits=int(match[2]) if match[2] else None)

    def __str__(self) -> str:
        return self.name if self.bits is None else f"{self.name}:{self.bits}"

    def draw(self, port: str, width: int, streams: int, cycles: int, seed: int) -> "Stream":
        """Draw numbers of a port; they depend on nothing but the arguments.

        Raises
        ------
        ValueError
            If the port is not as wide as a whole number of numbers.
        """
        bits = self.bits if self.bits is not None else self._default_bits(port, width)
        if width % bits:
            raise ValueError(
                f"bits of a number must divide the {width} bits of port {port}, not be {bits}"
            )
        shape = (streams, cycles, width // bits)
        rng = np.random.default_rng([seed, zlib.crc32(port.encode())])
        if self.name == "normal":
            largest = float((1 << bits - 1) - 1)
            numbers = np.rint(rng.normal(0.0, max(largest, 1.0) / NORMAL_SIGMAS, shape))
            return Stream(np.clip(numbers, -largest - 1, largest).astype(np.int64), bits)
        highest = np.uint64((1 << bits) - 1)
        if self.name == "counter":
            start = rng.integers(0, highest, (streams, 1, shape[2]), np.uint64, endpoint=True)
            count = np.arange(cycles, dtype=np.uint64)[:, None]
            return Stream((start + count) & highest, bits)
        codes = rng.integers(0, highest, shape, np.uint64, endpoint=True)
        if self.name == "sparse":
            codes *= rng.random(shape) < 0.5
        return Stream(codes, bits)

    def _default_bits(self, port: str, width: int) -> int:
        most = MAX_NORMAL_BITS if self.name == "normal" else MAX_BITS
        if width <= most:
            return width
        if self.name == "uniform":
            return 1
        raise ValueError(
            f"distribution must state the bits of a number, as in {self.name}:8, for port {port} "
            f"of {width} bits"
        )


@dataclass(frozen=True, eq=False)
class Stream:
    """What a port gets.

    Parameters
    ----------
    numbers : ndarray of int, shape (streams, cycles, numbers side by side)
        Unsigned, or signed as two's complement.
    bits : int
        Bits of each.
    """

    numbers: Numbers
    bits: int

    @classmethod
    def constant(cls, port: str, value: int, width: int) -> "Stream":
        """Stream of one and the same value, of one stream and cycle.

        Raises
        ------
        ValueError
            If the value does not fit.
        """
        if not -(1 << width - 1) <= value < 1 << width:
            raise ValueError(f"value of port {port} must fit in {width} bits, not be {value}")
        bits = [value >> index & 1 for index in range(width)]
        return cls(np.array(bits, np.uint8).reshape(1, 1, width), 1)

    def spread(self, streams: int, cycles: int) -> "Stream":
        """Repeat a constant so often."""
        shape = (streams, cycles, self.numbers.shape[2])
        return Stream(np.broadcast_to(self.numbers, shape), self.bits)

    def words(self, begin: int, end: int) -> Words:
        """Bits of some cycles, a lane for each stream; shape (cycles, width, words)."""
        numbers = np.moveaxis(self.numbers[:, begin:end], 0, -1)
        cycles, count, _ = numbers.shape
        packed = pack(numbers, self.bits)
        return packed.reshape(cycles, count * self.bits, packed.shape[-1])


@dataclass(frozen=True, kw_only=True, eq=False)
class Stimuli:
    """What the inputs of a design do.

    Parameters
    ----------
    streams, cycles : int
        Streams side by side, and cycles of each.
    ports : dict of str to Stream
        By port; all of this size.
    """

    streams: int
    cycles: int
    ports: dict[str, Stream]


def load_stimuli(
    path: str | PathLike[str], widths: Mapping[str, int], *, streams: int = 1
) -> Stimuli:
    """Read what inputs do from a NumPy archive.

    Parameters
    ----------
    path : path
        An ``.npz`` file with an array of integers for each port, one row per cycle: [cycles], or
        [cycles, numbers] for several numbers side by side.
    widths : mapping of str to int
        Bits of each port.
    streams : int
        So many streams of equal length are made of the rows, one after the other.

    Returns
    -------
    Stimuli

    Raises
    ------
    ValueError
        If the file cannot be read, holds pickled objects or too much, or if an array is missing,
        belongs to no port, or has another type, length, shape or range than the port asks for.
    """
    arrays = load_arrays("stimuli", path, max_bytes=MAX_NUMBERS * 8)
    for name in arrays:
        if name not in widths:
            raise ValueError(
                f"stimuli must have arrays named {', '.join(widths) or 'nothing'} only, "
                f"not {name!r}"
            )
    missing = [name for name in widths if name not in arrays]
    if missing:
        raise ValueError(
            f"stimuli must have an array for each input, but lack {', '.join(missing[:8])}"
        )
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    for name, length in lengths.items():
        first, expected = next(iter(lengths.items()))
        if length != expected or not length:
            raise ValueError(
                f"stimuli must have the same number of rows, at least 1, for all ports, not "
                f"{expected} for {first} and {length} for {name}"
            )
        if length % streams:
            raise ValueError(
                f"streams must divide the {length} rows of the stimuli, not be {streams}"
            )
    if not lengths:
        raise ValueError("stimuli must have an array for an input, but all inputs are known")
    return Stimuli(
        streams=streams,
        cycles=next(iter(lengths.values())) // streams,
        ports={name: _stream(name, arrays[name], width, streams) for name, width in widths.items()},
    )


def _stream(name: str, array: Numbers, width: int, streams: int) -> Stream:
    if array.dtype.kind not in "iub":
        raise ValueError(f"stimuli of {name} must be integers, not {array.dtype}")
    if array.ndim > 2:
        raise ValueError(
            f"stimuli of {name} must have the shape [cycles] or [cycles, numbers], "
            f"not {list(array.shape)}"
        )
    count = 1 if array.ndim == 1 else array.shape[1]
    if not count or width % count or width // count > MAX_BITS:
        raise ValueError(
            f"stimuli of {name}, a port of {width} bits, must have equal numbers of at most "
            f"{MAX_BITS} bits in each row, not {count}"
        )
    bits = width // count
    low, high = int(array.min()), int(array.max())
    if low < -(1 << bits - 1) or high >= 1 << bits:
        raise ValueError(f"stimuli of {name} must fit in {bits} bits, not be {low} to {high}")
    return Stream(array.reshape(streams, -1, count), bits)


def random_stimuli(
    widths: Mapping[str, int],
    *,
    streams: int,
    cycles: int,
    seed: int,
    default: Distribution,
    by_port: Mapping[str, Distribution] | None = None,
) -> Stimuli:
    """Draw what inputs do.

    Parameters
    ----------
    widths : mapping of str to int
        Bits of each port.
    streams, cycles : int
        Streams, and cycles of each.
    seed : int
        Of all numbers.
    default : Distribution
        Of the ports that have none in ``by_port``.
    by_port : mapping of str to Distribution, optional
        Distributions of ports.

    Returns
    -------
    Stimuli

    Raises
    ------
    ValueError
        If there would be too many numbers, or a distribution does not suit its port.
    """
    chosen = dict(by_port or {})
    _require_room([1, *widths.values()], streams * cycles)
    return Stimuli(
        streams=streams,
        cycles=cycles,
        ports={
            name: chosen.get(name, default).draw(name, width, streams, cycles, seed)
            for name, width in widths.items()
        },
    )


def _require_room(widths: Iterable[int], rows: int) -> None:
    # A wide port may be drawn bit by bit.
    numbers = sum(width if width > MAX_BITS else 1 for width in widths) * rows
    if numbers > MAX_NUMBERS:
        raise ValueError(
            f"random numbers must be at most {MAX_NUMBERS} for all ports, not {numbers}"
        )
