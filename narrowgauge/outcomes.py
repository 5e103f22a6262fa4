"""What the regression found, for the terminal and as JSON."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby

from rich.console import Console

from narrowgauge.regression import COVERAGE, Case, Outcome
from narrowgauge.table import Column, print_table
from sim.coverage import Counts, merge

__all__ = ["outcomes_json", "print_outcomes"]


def print_outcomes(console: Console, outcomes: Sequence[Outcome]) -> None:
    """Print a line for each case, the coverage of each design, then every failure in full.

    Parameters
    ----------
    console : Console
        Where to.
    outcomes : sequence of Outcome
        At least one.
    """
    groups = list(_by_case(outcomes))
    print_table(
        console,
        [
            _texts("design", [case.design for case, _ in groups]),
            # What the name says beyond the design.
            _texts("format", ["/".join(case.name.split("/")[1:]) for case, _ in groups]),
            _texts("on", [case.level for case, _ in groups]),
            _figures("tests", [str(len(group)) for _, group in groups]),
            _figures("failed", [str(sum(not one.passed for one in group)) for _, group in groups]),
            _figures("s", [f"{group[0].case_seconds:.1f}" for _, group in groups]),
        ],
    )
    console.print()
    covered = coverage(outcomes)
    if covered:
        _print_coverage(console, covered)
        console.print()
    failed = [outcome for outcome in outcomes if not outcome.passed]
    for outcome in failed:
        console.print(f"{outcome.name}: {outcome.message}", soft_wrap=True)
        console.print(f"  again: {outcome.command}", soft_wrap=True)
    simulators = ", ".join(dict.fromkeys(outcome.simulator for outcome in outcomes))
    console.print(
        f"{len(outcomes)} tests, {len(failed)} failed; {simulators}, seed {outcomes[0].seed}"
    )


def outcomes_json(outcomes: Sequence[Outcome]) -> str:
    """Outcomes, and the coverage of each design, as JSON."""
    listing = {
        "seed": outcomes[0].seed,
        "outcomes": [
            {
                "name": outcome.name,
                "case": asdict(outcome.case),
                "simulator": outcome.simulator,
                "test": outcome.test,
                "passed": outcome.passed,
                "seconds": round(outcome.seconds, 3),
                "message": outcome.message,
                "command": outcome.command,
            }
            for outcome in outcomes
        ],
        "coverage": coverage(outcomes),
    }
    return json.dumps(listing, indent=1) + "\n"


def coverage(outcomes: Sequence[Outcome]) -> dict[str, Counts]:
    """Hits by design, group and bin, of all cases whose coverage was judged."""
    judged = [outcome for outcome in outcomes if outcome.test == COVERAGE]
    designs = dict.fromkeys(outcome.case.design for outcome in judged)
    return {
        design: merge(one.coverage for one in judged if one.case.design == design)
        for design in designs
    }


def _print_coverage(console: Console, covered: dict[str, Counts]) -> None:
    """Print one line for each group of bins of a design, with the bin that was hit least."""
    rows = [
        (design, group, bins)
        for design, groups in covered.items()
        for group, bins in groups.items()
    ]
    least = [min(bins, key=bins.__getitem__) for _, _, bins in rows]
    print_table(
        console,
        [
            _texts("design", [design for design, _, _ in rows]),
            _texts("bins of", [group for _, group, _ in rows]),
            _figures("bins", [str(len(bins)) for _, _, bins in rows]),
            _figures("hit", [str(sum(map(bool, bins.values()))) for _, _, bins in rows]),
            _texts("least hit", least),
            _figures(
                "times", [str(bins[name]) for (_, _, bins), name in zip(rows, least, strict=True)]
            ),
        ],
    )


def _by_case(outcomes: Sequence[Outcome]) -> Iterator[tuple[Case, list[Outcome]]]:
    for case, group in groupby(outcomes, lambda one: one.case):
        yield case, list(group)


def _texts(heading: str, cells: Sequence[str]) -> Column:
    return Column(heading=heading, cells=cells, is_text=True)


def _figures(heading: str, cells: Sequence[str]) -> Column:
    return Column(heading=heading, cells=cells)
