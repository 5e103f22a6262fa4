"""Pictures of a comparison as SVG that is written into a page.

Matplotlib draws those with axes.  Colours are names of CSS variables, so that the page decides on
light and dark; texts are texts.  The bytes depend on the data alone.
"""

import io
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from narrowgauge.table import PARTS

__all__ = [
    "Point",
    "group_marks",
    "histogram",
    "pareto_front",
    "part_colours",
    "scatter",
    "strip",
    "strip_limits",
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
MARKERS = ("o", "D", "s", "^", "v", "P", "X")
SYMBOLS = "\u25cf\u25c6\u25a0\u25b2\u25bc\u271a\u2716"

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
    used |= set(re.findall(rf'id="({OURS}[^"]*)"', text))
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
    order = [*PARTS, *(part for part in parts if part not in PARTS)]
    return {part: COLOURS[SERIES[order.index(part) % SERIES_COUNT]] for part in parts}


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


# Points.

#: Width and height for a page with room for two pictures side by side, and for a telephone.
WIDE = (480, 340)
NARROW = (336, 330)

#: Start of the identifiers of elements that the page knows.
OURS = "our-"

#: A label takes about so many units for each character, in the fonts that pages use.
CHARACTER_WIDTH = 6.4
LINE_HEIGHT = 14.0

#: Label, group, x and y.
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
    *,
    reference: tuple[str, float] | None = None,
    less_is_better: bool = False,
    size: tuple[int, int] = WIDE,
) -> str:
    """Points with labels and the Pareto front of least x and most, or least, y.

    The page finds each point and its label by the attribute ``data-system``, its group, and the
    front by the class ``front``.

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
    less_is_better : bool
        Whether y is a cost too.
    size : (int, int)
        Width and height in units of the drawing.
    """
    groups = list(dict.fromkeys(group for _, group, _, _ in points))
    places = np.array([(x, y) for _, _, x, y in points])
    width, height = size

    def paint(picture: Figure) -> None:
        left, bottom = 58 / width, 50 / height
        axes = picture.add_axes((left, bottom, 1 - left - 6 / width, 1 - bottom - 8 / height))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.tick_params(length=0)
        heights = [*places[:, 1], *([reference[1]] if reference else [])]
        axes.set_xlim(*_limits(places[:, 0]))
        axes.set_ylim(*_margins(min(heights), max(heights)))
        if reference:
            label, level = reference
            axes.axhline(level, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
            axes.annotate(
                label,
                (axes.get_xlim()[0], level),
                xytext=(4, 4),
                textcoords="offset points",
                color=MUTED,
                fontsize=FONT_SIZE - 1,
            )
        sign = -1 if less_is_better else 1
        front = pareto_front([(x, sign * y) for x, y in places.tolist()])
        steps = places[front]
        # Between two formats of the front nothing better than the cheaper one was measured.
        axes.step(
            [*steps[:, 0], axes.get_xlim()[1]],
            [*steps[:, 1], steps[-1, 1]],
            where="post",
            color=INK,
            linewidth=1.2,
            alpha=0.5,
            gid=f"{OURS}front",
        )
        for index, (_, group, x, y) in enumerate(points):
            number = groups.index(group)
            axes.plot(
                [x],
                [y],
                MARKERS[number % len(MARKERS)],
                color=_group_series(number),
                markeredgecolor=PAPER,
                markersize=8,
                gid=f"{OURS}point-{index}",
            )
        _label_points(
            picture, axes, [point[0] for point in points], places, front, every=size == WIDE
        )

    text = _draw(name, width, height, paint)
    text = text.replace(f'id="{OURS}front"', f'class="front{" less" if less_is_better else ""}"')
    for index, (label, group, x, y) in enumerate(points):
        system = f'data-system="{escape(group)}"'
        title = f"<title>{escape(label)}: {x:.4g}, {y:.4g}</title>"
        text = text.replace(f'id="{OURS}label-{index}"', system)
        text = text.replace(f'id="{OURS}line-{index}"', f'class="line" {system}')
        text = text.replace(f'<g id="{OURS}point-{index}">', f'<g class="point" {system}>{title}')
    return text


def _limits(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Choose ends of an axis of costs, from 0 unless that would leave half of it empty."""
    low, high = float(values.min()), float(values.max())
    if low > high / 2:
        return _margins(low, high)
    return 0.0, 1.12 * high or 1.0


def _margins(low: float, high: float) -> tuple[float, float]:
    margin = 0.12 * (high - low) or 1.0
    return low - margin, high + margin


#: A label within this distance of its point is beside it.
NEAR = 10.0

#: Area that a label may cover of others where not every point needs one.
TOLERATED_OVERLAP = 12.0


def _label_points(
    picture: Figure,
    axes: Axes,
    labels: Sequence[str],
    places: npt.NDArray[np.float64],
    front: Sequence[int],
    *,
    every: bool,
) -> None:
    """Write the labels beside their points, where they cover each other and the points least.

    Those of the front come first.  Unless ``every`` point is to have one, labels that would still
    cover something are left out.
    """
    units = INCH / picture.dpi
    centres = (axes.transData.transform(places) * units).tolist()
    box = axes.get_window_extent()
    frame = (box.x0 * units, box.y0 * units, box.x1 * units, box.y1 * units)
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in centres]
    for index in [*front, *(index for index in range(len(labels)) if index not in front)]:
        label, (x, y) = labels[index], centres[index]
        width = CHARACTER_WIDTH * len(label)
        costs = {}
        for rank, (dx, dy) in enumerate(_offsets(width)):
            area = (x + dx, y + dy, x + dx + width, y + dy + LINE_HEIGHT)
            covered = sum(_overlap(area, other) for other in taken)
            costs[area] = covered + 100 * _outside(area, frame) + rank
        best = min(costs, key=lambda area: costs[area])
        if not every and sum(_overlap(best, other) for other in taken) > TOLERATED_OVERLAP:
            continue
        taken.append(best)
        # A line leads to a label that is not beside its point.
        is_far = _overlap(best, (x - NEAR, y - NEAR, x + NEAR, y + NEAR)) == 0
        line = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 5}
        note = axes.annotate(
            label,
            places[index].tolist(),
            xytext=(best[0] - x, best[1] - y + 3),
            textcoords="offset points",
            fontsize=FONT_SIZE,
            annotation_clip=False,
            arrowprops=line if is_far else None,
            gid=f"{OURS}label-{index}",
        )
        if note.arrow_patch is not None:
            note.arrow_patch.set_gid(f"{OURS}line-{index}")


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

#: Width of a strip in units of its own, of which a reader sees as many as the page has pixels.
STRIP_WIDTH = 1000

#: Height of a histogram and of a strip in such units.
HISTOGRAM_HEIGHT = 100
STRIP_HEIGHT = 10

#: Marks that are closer than this are drawn as one: thousands would make the page slow.
MARK_PITCH = 1


def strip_limits(edges: Sequence[float]) -> tuple[float, float]:
    """Choose ends of the strips below a histogram: a little more than it spans.

    Parameters
    ----------
    edges : sequence of float
        Borders of its bins.
    """
    margin = 0.04 * (edges[-1] - edges[0]) or 1.0
    return edges[0] - margin, edges[-1] + margin


def histogram(edges: Sequence[float], counts: Sequence[int]) -> str:
    """Outline of a histogram, as the path of an SVG of 1000 by 100 units.

    Parameters
    ----------
    edges, counts : sequence
        ``len(edges) == len(counts) + 1``.
    """
    places = _strip_places(edges, strip_limits(edges))
    scale = HISTOGRAM_HEIGHT / (max(counts) or 1)
    steps = "".join(
        f"V{_units(HISTOGRAM_HEIGHT - scale * count)}H{_units(right)}"
        for count, right in zip(counts, places[1:], strict=True)
    )
    return f"M{_units(places[0])} {HISTOGRAM_HEIGHT}{steps}V{HISTOGRAM_HEIGHT}Z"


def strip(values: Sequence[float], limits: tuple[float, float]) -> tuple[str, int, int]:
    """Mark the values of a format, as the path of an SVG of 1000 by 10 units.

    Parameters
    ----------
    values : sequence of float
        Values, which may occur more than once.
    limits : (float, float)
        Ends of the strip, see :func:`strip_limits`.

    Returns
    -------
    str
        Path.
    int
        Values in range.
    int
        Values.
    """
    distinct = np.unique(np.asarray(values, float))
    shown = distinct[(distinct >= limits[0]) & (distinct <= limits[1])]
    marks = np.unique(np.round(_strip_places(shown, limits) / MARK_PITCH)) * MARK_PITCH
    path = "".join(f"M{_units(mark)} 0v{STRIP_HEIGHT}" for mark in marks)
    return path, len(shown), len(distinct)


def _strip_places(values: npt.ArrayLike, limits: tuple[float, float]) -> npt.NDArray[np.float64]:
    low, high = limits
    return (np.asarray(values, float) - low) * (STRIP_WIDTH / (high - low))


def _units(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
