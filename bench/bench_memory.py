"""Models of memories against the figures of their sources, and against one another.

Prints, for each built-in model, every point of its sources with what the form says of it, then the
figures that its form does not go through, and at last the models side by side.
"""

import argparse
import math

from synth.library import load
from synth.memory import (
    QUANTITIES,
    MemoryModel,
    choose_model,
    memory_cost,
    model_names,
    off_chip,
    off_chip_names,
)

#: Sizes for the models side by side: rows and bits of one.
SIZES = ((64, 32), (256, 32), (256, 64), (1024, 32), (1024, 64), (4096, 64), (16384, 64))


def _figures(model: MemoryModel, points: str) -> None:
    """Print points with the model's figure and its error, and the errors of each quantity."""
    errors: dict[tuple[str, str], list[float]] = {}
    for point in getattr(model, points):
        cost = model.cost(point["rows"], point["width"])
        cells = []
        for quantity in QUANTITIES:
            if quantity in point:
                error = getattr(cost, quantity) / point[quantity] - 1
                errors.setdefault((quantity, point["source"]), []).append(error)
                cells.append(f"{quantity} {point[quantity]:.5g} {100 * error:+.0f}%")
        size = f"{point['rows']}x{point['width']}"
        print(f"  {size:>8}  {point['source']:<14} {'  '.join(cells)}")
    for (quantity, source), values in errors.items():
        mean = math.fsum(abs(value) for value in values) / len(values)
        worst = max(values, key=abs)
        print(
            f"  {points} {quantity}: {len(values)} of {source}, mean error {100 * mean:.1f} %, "
            f"worst {100 * worst:+.1f} %"
        )


def main() -> None:
    """Print all models."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    library = load("nangate45")
    models = {name: choose_model(name, library) for name in model_names()}
    for name, model in models.items():
        assert model is not None
        print(f"{name}: {model.title}")
        for quantity, terms in model.forms.items():
            form = " + ".join(f"{factor:g} {term}" for term, factor in terms.items())
            print(f"  {quantity} = {form}  [{model.origins[quantity]}]")
        for points in ("points", "checks"):
            _figures(model, points)
        print()

    print("Read of one row, pJ (pJ for a bit); * no point of this size; r registers")
    print("     size " + "".join(f"{name:>21}" for name in models))
    for rows, width in SIZES:
        cells = []
        for name, model in models.items():
            assert model is not None
            cells_of = load(name) if name in ("asap7", "sky130") else library
            cost = memory_cost(model, cells_of, rows, width)
            mark = "r" if cost.kind == "registers" else " " if cost.in_range else "*"
            cells.append(f"{cost.read_pj:>11.3f} ({cost.read_pj / width:.4f}){mark}")
        print(f"{f'{rows}x{width}':>9} " + "".join(cells))
    print("\nOff chip, pJ for a bit")
    for name in off_chip_names():
        kind = off_chip(name)
        assert kind is not None
        print(f"  {name:<7} {kind.pj_per_bit:6.2f}  {kind.source}")


if __name__ == "__main__":
    main()
