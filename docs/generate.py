"""Fill the tables of the pages of this folder, and draw their pictures, from the golden models.

Run as ``python docs/generate.py``; with ``--check`` nothing is written, and the exit code is 1 if
something is stale.  A page has its tables between ``<!-- table: SPEC -->`` and ``<!-- end -->``.
"""

import argparse
import hashlib
import io
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from golden.abfp_tile import AbfpTileSpec
from golden.element import ElementSpec
from golden.formats import parse
from golden.weight_pool import WeightPoolFormat
from narrowgauge import networks
from narrowgauge.onnx_reader import read
from narrowgauge.table import print_codes, terminal

#: Specs of the picture of each page of a number system whose elements are coded one by one.
SPECS: Mapping[str, Sequence[str]] = {
    "tapered": (
        "tapered6:max_run=2",
        "tapered6:max_run=3",
        "tapered6:max_run=4",
        "tapered6:max_run=6",
    ),
    "dybit": ("fixed4:frac_bits=3", "dybit4", "dybit5", "dybit6"),
    "elp_bsd": (
        "elp_bsd4:set=E4-1",
        "elp_bsd4:set=E4-2",
        "elp_bsd5:set=E5-2",
        "elp_bsd6:set=E6-2",
        "elp_bsd7:set=E7-2",
    ),
}

#: Widths of tables, and size of pictures in inches.
COLUMNS = 90
SIZE = (8.0, 4.6)

#: Significant digits of the data that a picture's digest is made of.
DIGITS = 9


def table(spec: str) -> str:
    """Code table of a format as a block of Markdown."""
    console = terminal(COLUMNS)
    console.file = file = io.StringIO()
    print_codes(console, parse(spec).spec())
    lines = "\n".join(line.rstrip() for line in file.getvalue().rstrip().splitlines())
    return f"```text\n{lines}\n```"


def with_tables(text: str) -> str:
    """Page with all of its tables made anew."""
    return re.sub(
        r"<!-- table: (\S+) -->\n.*?<!-- end -->",
        lambda match: f"<!-- table: {match[1]} -->\n{table(match[1])}\n<!-- end -->",
        text,
        flags=re.S,
    )


class Picture:
    """Curves to draw, and what tells whether a drawing shows them.

    Parameters
    ----------
    paint : callable
        Fills the figure.
    data : sequence of ndarray
        Everything that the drawing shows.
    """

    def __init__(self, paint: Callable[[Figure], None], data: Sequence[npt.NDArray[np.float64]]):
        self.paint = paint
        texts = [" ".join(f"{x:.{DIGITS}g}" for x in np.ravel(part)) for part in data]
        self.digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()

    def svg(self, name: str) -> str:
        """Drawing as an SVG file, which names the digest of its data."""
        file = io.StringIO()
        with matplotlib.rc_context({"svg.hashsalt": name, "font.size": 9, "svg.fonttype": "none"}):
            figure = Figure(figsize=SIZE, layout="constrained")
            self.paint(figure)
            figure.savefig(file, format="svg", facecolor="white", metadata={"Date": None})
        text = "\n".join(line.rstrip() for line in file.getvalue().splitlines())
        return f"{text}\n<!-- data: {self.digest} -->\n"

    def is_in(self, text: str) -> bool:
        """Whether a drawing shows this data."""
        return f"<!-- data: {self.digest} -->" in text


def values_and_steps(names: Sequence[str]) -> Picture:
    """Draw the values of formats, and how far rounding goes at most, over the size of a number."""
    curves = []
    for name in names:
        spec = parse(name).spec()
        assert isinstance(spec, ElementSpec)
        values = np.unique(spec.value_table)
        positive = values[values > 0]
        middles = (positive[1:] + positive[:-1]) / 2
        curves.append((values, middles, np.diff(positive) / 2 / middles))

    def paint(figure: Figure) -> None:
        strips, errors = figure.subplots(2, 1, height_ratios=(2, 3))
        for row, (name, (values, middles, relative)) in enumerate(zip(names, curves, strict=True)):
            strips.vlines(values, row - 0.35, row + 0.35, color=f"C{row}", linewidth=0.8)
            errors.loglog(
                middles, relative, ".-", color=f"C{row}", label=name, linewidth=0.8, zorder=-row
            )
        strips.set_yticks(range(len(names)), names)
        strips.invert_yaxis()
        strips.set_xlabel("value")
        errors.set_xlabel("magnitude of a number")
        errors.set_ylabel("largest error / number")
        errors.grid(visible=True, which="both", alpha=0.3)
        errors.legend()

    return Picture(paint, [part for curve in curves for part in curve])


def converter(tile: int, gains: Sequence[int]) -> Picture:
    """Draw the output code of the analog-to-digital converter of abfp over the sum of a tile."""
    specs = [AbfpTileSpec(tile=tile, gain=gain) for gain in gains]
    limit = specs[0].largest_sum
    sums = np.arange(-limit // 4, limit // 4 + 1, 64)
    codes = [spec.convert(sums).astype(np.float64) for spec in specs]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for gain, code in zip(gains, codes, strict=True):
            axes.step(sums, code, where="mid", linewidth=0.8, label=f"gain {gain}")
        axes.set_xlabel(f"exact sum of {tile} products of 8-bit codes")
        axes.set_ylabel("code of the converter")
        axes.grid(visible=True, alpha=0.3)
        axes.legend()

    return Picture(paint, [sums.astype(np.float64), *codes])


def pool_and_table(entries: int) -> Picture:
    """Draw the pool of the embedded network, and its table with what rounding does to it."""
    network = read(networks.digits().model_path)
    retrained = networks.retrained_digits(network, WeightPoolFormat(entries=entries))
    assert retrained is not None
    system = retrained[1].fit_network(retrained[0])
    assert system.spec is not None
    pool, table = np.asarray(system.spec.pool), system.spec.table.astype(np.float64)

    def paint(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, height_ratios=(1, 2))
        limit = np.abs(pool).max()
        image = above.imshow(pool.T, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
        figure.colorbar(image, ax=above, label="weight")
        above.set_ylabel("channel")
        above.set_xlabel("pool vector")
        largest = np.abs(table).max()
        image = below.imshow(table, cmap="RdBu", vmin=-largest, vmax=largest, aspect="auto")
        figure.colorbar(image, ax=below, label="entry")
        below.set_ylabel("address: bits of a plane")
        below.set_xlabel("pool vector")

    return Picture(paint, [pool, table])


def pictures() -> dict[str, Picture]:
    """All pictures by the stem of their page."""
    coded = {stem: values_and_steps(names) for stem, names in SPECS.items()}
    return coded | {"abfp": converter(128, (1, 2, 4, 8)), "weight_pool": pool_and_table(64)}


def main() -> int:
    """Write what is stale, or name it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing, name what is stale")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="of the pages")
    options = parser.parse_args()

    stale: dict[Path, str] = {}
    for page in sorted(options.folder.glob("*.md")):
        text = page.read_text()
        if (made := with_tables(text)) != text:
            stale[page] = made
    for stem, picture in pictures().items():
        path = options.folder / f"{stem}.svg"
        if not path.exists() or not picture.is_in(path.read_text()):
            stale[path] = picture.svg(stem)
    for path, text in stale.items():
        if options.check:
            print(f"{path.name} is stale: run python docs/generate.py")
        else:
            path.write_text(text)
            print(f"wrote {path.name}")
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
