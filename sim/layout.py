"""Bit layout of ports, and conversion of whole columns of values to and from port words.

A layout is what JSON can say of a shape: ``{"width", "signed"}`` for an integer, with ``"lanes"``
and ``"lane"`` (a layout) for an array, with ``"fields"`` (``{"offset"}`` and a layout, by name) for
a structure.  The first lane, and the first field, have the low bits.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Layout", "pack", "unpack"]

Layout = Mapping[str, Any]


def pack(layout: Layout, values: Any) -> list[int]:
    """Words of a port, one for each row of values.

    Parameters
    ----------
    layout : Layout
        Of the port.
    values : array_like of int, or mapping of these by field
        Shape (rows,) for an integer, (rows, lanes) for an array of integers.

    Returns
    -------
    list of int
        Unsigned.

    Raises
    ------
    ValueError
        If a value does not fit, or a field is missing or unknown.
    """
    bits = np.packbits(_to_bits(layout, values), axis=-1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in bits]


def unpack(layout: Layout, words: Sequence[int]) -> Any:
    """Values of a port, the inverse of :func:`pack`.

    Parameters
    ----------
    layout : Layout
        Of the port.
    words : sequence of int
        Unsigned.

    Returns
    -------
    ndarray of int64, or dict of these by field
    """
    size = (layout["width"] + 7) // 8
    text = b"".join(word.to_bytes(size, "little") for word in words)
    octets = np.frombuffer(text, np.uint8).reshape(len(words), size)
    return _from_bits(layout, np.unpackbits(octets, axis=-1, bitorder="little"))


def _to_bits(layout: Layout, values: Any) -> npt.NDArray[np.uint8]:
    if "fields" in layout:
        if set(values) != set(layout["fields"]):
            fields = ", ".join(layout["fields"])
            raise ValueError(f"fields must be {fields}, not {', '.join(values)}")
        parts = {name: _to_bits(field, values[name]) for name, field in layout["fields"].items()}
        bits = np.zeros((len(next(iter(parts.values()))), layout["width"]), np.uint8)
        for name, field in layout["fields"].items():
            bits[:, field["offset"] : field["offset"] + field["width"]] = parts[name]
        return bits
    integers = np.asarray(values)
    if "lanes" in layout:
        rows, lanes = integers.shape
        if lanes != layout["lanes"]:
            raise ValueError(f"lanes must be {layout['lanes']}, not {lanes}")
        return _to_bits(layout["lane"], integers.reshape(-1)).reshape(rows, -1)
    width = layout["width"]
    low = -(1 << width - 1) if layout["signed"] else 0
    for extreme in (integers.min(initial=0), integers.max(initial=0)):
        if not low <= extreme < low + (1 << width):
            raise ValueError(f"value must fit {width} bits from {low} on, not {extreme}")
    return (integers.astype(np.int64)[:, None] >> np.arange(width) & 1).astype(np.uint8)


def _from_bits(layout: Layout, bits: npt.NDArray[np.uint8]) -> Any:
    if "fields" in layout:
        return {
            name: _from_bits(field, bits[:, field["offset"] : field["offset"] + field["width"]])
            for name, field in layout["fields"].items()
        }
    if "lanes" in layout:
        width = layout["lane"]["width"]
        used = bits[:, : layout["lanes"] * width]
        return _from_bits(layout["lane"], used.reshape(-1, width)).reshape(len(bits), -1)
    width = layout["width"]
    weights = 1 << np.arange(width, dtype=np.int64)
    if layout["signed"]:
        weights[-1] *= -1
    return bits[:, :width] @ weights
