r"""Tables for papers: Markdown, and LaTeX with the lines of the booktabs package.

Names of formats, layers and files may hold anything; all of it is text here.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from narrowgauge.columns import Cell, Column, comparison_columns
from narrowgauge.rows import rows_with_measured
from narrowgauge.table import NONE, comparison_heading, comparison_notes

__all__ = [
    "comparison_latex",
    "comparison_markdown",
    "latex_table",
    "latex_text",
    "markdown_table",
    "markdown_text",
]

#: What LaTeX would not set as it stands in text.
LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': "''",
    "\u202f": r"\,",
    "\u00b2": r"\textsuperscript{2}",
    "\u00b5": r"$\mu$",
    "\u00d7": r"$\times$",
}

#: What may begin or end something in a cell of a table or in a line of a list.
MARKDOWN = re.compile(r"([\\`*_\[\]<>|~&$])")


def latex_text(text: str) -> str:
    """Text that LaTeX sets as it stands here; control characters become spaces."""
    return "".join(LATEX.get(letter, letter) for letter in _one_line(text))


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it stands here; control characters become spaces."""
    return MARKDOWN.sub(r"\\\1", _one_line(text))


def _one_line(text: str) -> str:
    return "".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in text)


def markdown_table(columns: Sequence[Column]) -> str:
    """Table of GitHub's and Pandoc's Markdown, aligned in its source too.

    Parameters
    ----------
    columns : sequence of Column
        Units go into the headings.
    """
    shown = []
    for column in columns:
        title, unit = markdown_text(column.title), markdown_text(column.unit)
        heading = f"{title} ({unit})" if title and unit else title or unit
        cells = [markdown_text(cell.text) for cell in column.cells]
        width = max(map(len, [heading, *cells, "---"]))
        if column.is_text:
            line = [text.ljust(width) for text in (heading, ":".ljust(width, "-"), *cells)]
        else:
            line = [text.rjust(width) for text in (heading, ":".rjust(width, "-"), *cells)]
        shown.append(line)
    return "".join(f"| {' | '.join(row)} |\n" for row in zip(*shown, strict=True))


def latex_table(columns: Sequence[Column], caption: str) -> str:
    """Table of LaTeX; needs the package booktabs.

    Parameters
    ----------
    columns : sequence of Column
        Units stand below the titles.  The first column is set in typewriter.
    caption : str
        Text under which the table stands.
    """
    kinds = "".join("l" if column.is_text else "r" for column in columns)
    titles = [latex_text(column.title) for column in columns]
    units = [f"({latex_text(column.unit)})" if column.unit else "" for column in columns]
    # A factor has no other name than its sign.
    units = [
        unit if column.title else latex_text(column.unit)
        for column, unit in zip(columns, units, strict=True)
    ]
    rows = [
        [rf"\texttt{{{latex_text(key.text)}}}", *(_latex_cell(cell) for cell in cells)]
        for key, *cells in zip(*(column.cells for column in columns), strict=True)
    ]
    lines = [
        r"% Needs \usepackage{booktabs}.",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex_text(caption)}}}",
        rf"\begin{{tabular}}{{{kinds}}}",
        r"\toprule",
        _latex_row(titles),
        *([_latex_row(units)] if any(units) else []),
        r"\midrule",
        *(_latex_row(row) for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join([*lines, ""])


def _latex_cell(cell: Cell) -> str:
    if cell.text == NONE:
        return "--"
    if not isinstance(cell.value, str) and cell.text.startswith("-"):
        # A hyphen is no minus sign.
        return f"$-${latex_text(cell.text[1:])}"
    return latex_text(cell.text)


def _latex_row(texts: Sequence[str]) -> str:
    return " & ".join(texts) + r" \\"


def comparison_markdown(result: Mapping[str, Any]) -> str:
    """Table of a comparison, and what has to be said of it, in Markdown."""
    facts = [markdown_text(line) for line in comparison_heading(result)]
    notes = [f"- {markdown_text(note)}" for note in comparison_notes(result)]
    columns = comparison_columns(rows_with_measured(result))
    text = f"{'; '.join(facts)}.\n\n{markdown_table(columns)}"
    return text + "".join(f"\n{note}" for note in notes) + ("\n" if notes else "")


def comparison_latex(result: Mapping[str, Any]) -> str:
    """Table of a comparison, with what has to be said of it in its caption, in LaTeX."""
    caption = "; ".join([*comparison_heading(result), *comparison_notes(result)]) + "."
    return latex_table(comparison_columns(rows_with_measured(result)), caption)
