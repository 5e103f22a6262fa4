"""Pictures of a comparison as SVG that is written into a page.

Matplotlib draws them.  Their colours are names of CSS variables, so that the page decides on light
and dark; their texts are texts.  The bytes depend on the data alone.
"""

import io
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline

from narrowgauge.table import PARTS, aligned

__all__ = [
    "Point",
    "group_marks",
    "pareto_front",
    "part_colours",
    "scatter",
    "stacked_bars",
    "value_strips",
]

# The first picture on a machine makes a list of fonts, which is nothing to tell the user.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

#: Colours that matplotlib draws in, and the variable that takes the place of each.
INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
BASIC_COLOURS = {INK: "--ink", MUTED: "--muted", GRID: "--line", PAPER: "--paper"}
SERIES_COUNT = 10
SERIES = [f"#0500{index:02x}" for index in range(SERIES_COUNT)]
COLOURS = BASIC_COLOURS | {colour: f"--series-{i}" for i, colour in enumerate(SERIES)}

#: One inch is 72 units of the drawing.
INCH = 72
FONT_SIZE = 11.0

#: Markers by number system, so that colour is not all that tells them apart.
MARKERS = ("o", "D", "s", "^", "v", "P")
SYMBOLS = "\u25cf\u25c6\u25a0\u25b2\u25bc\u271a"

STYLE: dict[str, Any] = {
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.unicode_minus": False,
    "font.family": "DejaVu Sans",
    "font.size": FONT_SIZE,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "path.simplify": False,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.color": MUTED,
    "ytick.labelcolor": MUTED,
}


def _draw(name: str, width: float, height: float, paint: Callable[[Figure], None]) -> str:
    """Text of an ``svg`` element of a page.

    Parameters
    ----------
    name : str
        Unlike those of the other pictures of the page: identifiers in the picture depend on it.
    width, height : float
        Size in units of the drawing.
    paint : callable
        Fills the figure.
    """
    file = io.StringIO()
    style: Any = STYLE | {"svg.hashsalt": name}
    with matplotlib.rc_context():
        # Settings of the user are for the pictures of the user.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style)
        picture = Figure(figsize=(width / INCH, height / INCH))
        paint(picture)
        picture.savefig(
            file,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    return _for_page(file.getvalue())


def _for_page(text: str) -> str:
    """Turn an SVG file into an element: no prologue, no name spaces, colours by variable."""
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.S)
    text = (
        re.sub(r' (xmlns(:\w+)?|version|width|height)="[^"]*"', "", text[: text.index(">")])
        + (text[text.index(">") :])
    )
    # Matplotlib gives every group an identifier, the same ones in each picture.
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", text)
    # The page has its own fonts; the size stays.  Releases of matplotlib write it in two ways.
    text = re.sub(r"font: (?:\w+ )?([\d.]+px) [^;\"]+", r"font-size: \1", text)
    text = re.sub(r" font-family: [^;\"]+;", "", text)
    for colour, variable in COLOURS.items():
        text = text.replace(colour, f"var({variable})")
    return re.sub(r"\s*\n\s*", "\n", text)


def part_colours(parts: Sequence[str]) -> dict[str, str]:
    """CSS variable of each part; the well-known parts have the same in every report.

    Parameters
    ----------
    parts : sequence of str
        Names of parts, in order.
    """
    return {part: COLOURS[colour] for part, colour in _part_series(parts).items()}


def group_marks(groups: Sequence[str]) -> dict[str, tuple[str, str]]:
    """CSS variable and symbol by which :func:`scatter` tells groups apart.

    Parameters
    ----------
    groups : sequence of str
        Names in the order in which they occur.
    """
    return {
        group: (COLOURS[_group_series(index)], SYMBOLS[index % len(SYMBOLS)])
        for index, group in enumerate(dict.fromkeys(groups))
    }


def _group_series(index: int) -> str:
    """Colour of a group; blue and orange, which everyone can tell apart, come first."""
    return SERIES[(index + 1) % SERIES_COUNT]


def _part_series(parts: Sequence[str]) -> dict[str, str]:
    others = [part for part in parts if part not in PARTS]
    order = [*PARTS, *others]
    return {part: SERIES[order.index(part) % SERIES_COUNT] for part in parts}


def _bare(axes: Axes, *, x: bool = True) -> None:
    """Take the vertical axis off, and the horizontal one too unless ``x``."""
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)
    if not x:
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)


# Bars.

BAR_WIDTH = 480
BAR_PITCH = 40


def stacked_bars(
    name: str, rows: Sequence[tuple[str, Mapping[str, float]]], parts: Sequence[str]
) -> str:
    """One bar for each row, made of its parts, with the label above it and the total at its end.

    Parameters
    ----------
    name : str
        Name of the picture.
    rows : sequence of (str, mapping)
        Label and parts of each bar.
    parts : sequence of str
        Order of the parts.
    """
    totals = [sum(breakdown.values()) for _, breakdown in rows]
    longest = max(totals) or 1.0
    series = _part_series(parts)

    def paint(picture: Figure) -> None:
        axes = picture.add_axes((0.01, 0.0, 0.98, 1.0))
        axes.set_xlim(0, longest * 1.12)
        axes.set_ylim(len(rows), 0)
        _bare(axes, x=False)
        axes.grid(visible=False)
        bars = zip(rows, totals, aligned(totals, 3), strict=True)
        for index, ((label, breakdown), total, text) in enumerate(bars):
            left = 0.0
            for part in parts:
                size = breakdown.get(part, 0.0)
                # A thin line of paper between the parts.
                axes.barh(
                    index + 0.68,
                    size,
                    0.44,
                    left=left,
                    color=series[part],
                    edgecolor=PAPER,
                    linewidth=0.8,
                )
                left += size
            axes.text(0, index + 0.36, label, fontsize=FONT_SIZE)
            axes.text(
                total + longest * 0.015,
                index + 0.69,
                text,
                va="center",
                color=MUTED,
                fontsize=FONT_SIZE,
            )

    return _draw(name, BAR_WIDTH, BAR_PITCH * len(rows) + 4, paint)


# Points.

POINTS_WIDTH, POINTS_HEIGHT = 480, 340

#: A label takes about so many units for each character, in the fonts that pages use.
CHARACTER_WIDTH = 6.4
LINE_HEIGHT = 14.0

Point = tuple[str, str, float, float]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points no other one betters: less cost at no less merit, or more merit at no more cost.

    Parameters
    ----------
    points : sequence of (float, float)
        Cost and merit of each.

    Returns
    -------
    list of int
        Indices by rising cost.  Of equal points, the first one.
    """
    order = sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1]))
    front: list[int] = []
    for index in order:
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def scatter(
    name: str,
    points: Sequence[Point],
    x_label: str,
    y_label: str,
    reference: tuple[str, float] | None = None,
) -> str:
    """Points with labels and the Pareto front of least x and most y.

    Parameters
    ----------
    name : str
        Name of the picture.
    points : sequence of (str, str, float, float)
        Label, group, x and y of each.
    x_label, y_label : str
        What the axes show.
    reference : (str, float), optional
        Label and height of a level to compare with.
    """
    groups = list(dict.fromkeys(group for _, group, _, _ in points))
    places = np.array([(x, y) for _, _, x, y in points])

    def paint(picture: Figure) -> None:
        axes = picture.add_axes((0.125, 0.15, 0.86, 0.82))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.tick_params(length=0)
        heights = [*places[:, 1], *([reference[1]] if reference else [])]
        low, high = min(heights), max(heights)
        margin = 0.12 * (high - low) or 1.0
        axes.set_xlim(0, 1.12 * float(places[:, 0].max()) or 1.0)
        axes.set_ylim(low - margin, high + margin)
        if reference:
            label, level = reference
            axes.axhline(level, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
            axes.annotate(
                label,
                (0, level),
                xytext=(4, 4),
                textcoords="offset points",
                color=MUTED,
                fontsize=FONT_SIZE - 1,
            )
        front = places[pareto_front([(x, y) for x, y in places.tolist()])]
        # Between two formats of the front nothing better than the cheaper one was measured.
        axes.step(
            [*front[:, 0], axes.get_xlim()[1]],
            [*front[:, 1], front[-1, 1]],
            where="post",
            color=INK,
            linewidth=1.2,
            alpha=0.5,
        )
        for number, group in enumerate(groups):
            members = [index for index, point in enumerate(points) if point[1] == group]
            axes.plot(
                places[members, 0],
                places[members, 1],
                MARKERS[number % len(MARKERS)],
                color=_group_series(number),
                markeredgecolor=PAPER,
                markersize=8,
            )
        _label_points(picture, axes, [point[0] for point in points], places)

    return _draw(name, POINTS_WIDTH, POINTS_HEIGHT, paint)


def _label_points(
    picture: Figure, axes: Axes, labels: Sequence[str], places: npt.NDArray[np.float64]
) -> None:
    """Write the labels beside their points, where they cover each other and the points least."""
    units = INCH / picture.dpi
    centres = axes.transData.transform(places) * units
    box = axes.get_window_extent()
    frame = (box.x0 * units, box.y0 * units, box.x1 * units, box.y1 * units)
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in centres]
    for label, (x, y), place in zip(labels, centres.tolist(), places, strict=True):
        width = CHARACTER_WIDTH * len(label)
        costs = {}
        for rank, (dx, dy) in enumerate(_offsets(width)):
            area = (x + dx, y + dy, x + dx + width, y + dy + LINE_HEIGHT)
            covered = sum(_overlap(area, other) for other in taken)
            costs[area] = covered + 100 * _outside(area, frame) + rank
        best = min(costs, key=lambda area: costs[area])
        taken.append(best)
        axes.annotate(
            label,
            place,
            xytext=(best[0] - x, best[1] - y + 3),
            textcoords="offset points",
            fontsize=FONT_SIZE,
            annotation_clip=False,
        )


def _offsets(width: float) -> list[tuple[float, float]]:
    """Where the lower left corner of a label may be, seen from its point, the best place first."""
    right, left, middle = 8.0, -8.0 - width, -width / 2
    level, above, below = -LINE_HEIGHT / 2, 6.0, -6.0 - LINE_HEIGHT
    # The front comes from below and goes to the right.
    near = [(middle, above), (left, above), (left, level), (right, below), (right, above)]
    others = [(right, level), (middle, below), (left, below)]
    far = [
        (x, y)
        for lines in (1, 2, 3)
        for x in (middle, left, right)
        for y in (above + lines * LINE_HEIGHT, below - lines * LINE_HEIGHT)
    ]
    return [*near, *others, *far]


#: Left, bottom, right, top.
Rectangle = tuple[float, float, float, float]


def _overlap(a: Rectangle, b: Rectangle) -> float:
    """Area that two rectangles share."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def _outside(area: Rectangle, frame: Rectangle) -> float:
    """How far a rectangle sticks out of the frame."""
    return (
        max(frame[0] - area[0], 0.0)
        + max(frame[1] - area[1], 0.0)
        + max(area[2] - frame[2], 0.0)
        + max(area[3] - frame[3], 0.0)
    )


# Values.

STRIPS_WIDTH = 480
HISTOGRAM_HEIGHT = 130
STRIP_PITCH = 34
AXIS_HEIGHT = 34

#: Marks that are closer than this, in units of the drawing, are drawn as one.
MARK_PITCH = 0.4


def value_strips(
    name: str,
    edges: Sequence[float],
    counts: Sequence[int],
    strips: Sequence[tuple[str, Sequence[float]]],
) -> str:
    """Histogram of weights, and below it a mark for each value that a format has.

    Parameters
    ----------
    name : str
        Name of the picture.
    edges, counts : sequence
        Histogram: ``len(edges) == len(counts) + 1``.
    strips : sequence of (str, sequence of float)
        Label and values of each format.
    """
    low, high = edges[0], edges[-1]
    margin = 0.04 * (high - low) or 1.0
    limits = low - margin, high + margin
    height = HISTOGRAM_HEIGHT + STRIP_PITCH * len(strips) + AXIS_HEIGHT

    def paint(picture: Figure) -> None:
        strips_share = (STRIP_PITCH * len(strips)) / height
        bottom = AXIS_HEIGHT / height
        upper = picture.add_axes(
            (0.02, bottom + strips_share, 0.96, HISTOGRAM_HEIGHT / height * 0.94)
        )
        lower = picture.add_axes((0.02, bottom, 0.96, strips_share))
        upper.stairs(counts, edges, fill=True, color=SERIES[8], alpha=0.7)
        upper.set_xlim(*limits)
        upper.set_ylim(0, 1.05 * (max(counts) or 1))
        _bare(upper)
        upper.tick_params(labelbottom=False)
        lower.set_xlim(*limits)
        lower.set_ylim(len(strips), 0)
        _bare(lower)
        lower.set_xlabel("value")
        for index, (label, values) in enumerate(strips):
            _draw_strip(lower, index, label, values, limits)

    return _draw(name, STRIPS_WIDTH, height, paint)


def _draw_strip(
    axes: Axes, index: int, label: str, values: Sequence[float], limits: tuple[float, float]
) -> None:
    low, high = limits
    distinct = np.unique(np.asarray(values, float))
    shown = distinct[(distinct >= low) & (distinct <= high)]
    pitch = MARK_PITCH * (high - low) / (0.96 * STRIPS_WIDTH)
    marks = np.unique(np.round((shown - low) / pitch)) * pitch + low
    # One outline for all: thousands of elements would make the page slow.
    ends = np.empty((2 * len(marks), 2))
    ends[:, 0] = np.repeat(marks, 2)
    ends[0::2, 1], ends[1::2, 1] = index + 0.5, index + 0.92
    codes = np.tile([Outline.MOVETO, Outline.LINETO], len(marks))
    if len(marks):
        axes.add_patch(
            PathPatch(Outline(ends, codes), edgecolor=INK, facecolor="none", linewidth=0.6)
        )
    axes.text(low, index + 0.4, label, fontsize=FONT_SIZE)
    axes.text(
        high,
        index + 0.4,
        f"{len(shown)} of {len(distinct)} values in range",
        ha="right",
        color=MUTED,
        fontsize=FONT_SIZE - 1,
    )
