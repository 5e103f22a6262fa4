"""Glitches of hardware on real work: of some cycles of some lanes, spread over all of them.

Simulation with delays takes a hundred times as long as without.  What a cycle costs with delays
depends on nothing but the values of the inputs and registers before and after the clock edge, so
cycles of different times and lanes can be simulated side by side.  The hardware runs without
delays; some lanes are kept in some cycles, the same share of all times and lanes; and these are
gone through again with delays, and without.  What glitches add is the difference of the two, so
that the choice of cycles matters less.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from synth.activity import LANES_PER_WORD, Activity, Simulator, Words
from synth.delays import library_delays
from synth.glitches import GlitchSimulator
from synth.netlist import Netlist
from synth.timing import Timing

__all__ = [
    "SAMPLES",
    "GlitchSamples",
    "GlitchSampling",
    "SampledSimulator",
    "begin_samples",
    "end_samples",
    "make_simulator",
]

#: Cycles of a lane that are kept at least, of a run that has as many.
SAMPLES = 1 << 12

#: Words of 64 lanes that are gone through at a time: room for twice as many.
WORDS = 128

Bits = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class GlitchSamples:
    """Activity of the same cycles without delays and with those of the library."""

    settled: Activity
    delayed: Activity


class SampledSimulator(Simulator):
    """Simulator without delays that keeps what some lanes do in some cycles.

    Of all lanes of all cycles one after the other, one of each so many is kept, chosen with a seed.
    The stretch doubles whenever there are twice as many as asked for.

    Parameters
    ----------
    netlist : Netlist
        Netlist of library cells with at most one clock.
    lanes : int
        Number of lanes, a multiple of 64.
    samples : int
        Cycles of a lane to keep: so many, or up to twice as many, or all if there are fewer.

    Raises
    ------
    ValueError
        If ``lanes`` is no multiple of 64, ``samples`` is less than 1, or as of a `Simulator`.
    """

    def __init__(
        self, netlist: Netlist, lanes: int, *, samples: int = SAMPLES, state_words: int = 0
    ) -> None:
        if lanes % LANES_PER_WORD:
            raise ValueError(f"lanes must be a multiple of 64, not {lanes}")
        if samples < 1:
            raise ValueError(f"samples must be at least 1, not {samples}")
        super().__init__(netlist, lanes, state_words=state_words)
        self._samples = samples
        self._sources = self.source_rows()
        self._is_keeping = False

    def begin(self) -> None:
        """Keep cycles from now on, and none of those before."""
        self._is_keeping = True
        self._rng = np.random.default_rng(self._samples)
        self._kept: list[tuple[Bits, Bits]] = []
        self._kept_count = 0
        self._stretch, self._seen, self._stretches = 1, 0, 0
        self._chosen = np.zeros(0, np.int64)

    def end(self) -> None:
        """Keep no cycle any more."""
        self._is_keeping = False

    @property
    def kept(self) -> tuple[Bits, Bits]:
        """Values of the sources before and in each cycle that was kept, shape (rows, cycles)."""
        if len(self._kept) != 1:
            empty = np.zeros((len(self._sources), 0), np.uint8)
            before, after = zip((empty, empty), *self._kept, strict=True)
            self._kept = [(np.concatenate(before, axis=1), np.concatenate(after, axis=1))]
        return self._kept[0]

    def _count(self) -> None:
        super()._count()
        if self._is_keeping:
            self._keep()

    def _keep(self) -> None:
        """Keep the lanes of this cycle that were chosen."""
        end = self._seen + self.lanes
        stretches = -(-end // self._stretch)
        begins = np.arange(self._stretches, stretches) * self._stretch
        chosen = begins + self._rng.integers(self._stretch, size=len(begins))
        self._chosen = np.concatenate([self._chosen, chosen])
        self._stretches = stretches
        now = self._chosen[self._chosen < end] - self._seen
        self._chosen = self._chosen[self._chosen >= end]
        self._seen = end
        if not len(now):
            return
        words, bits = now // LANES_PER_WORD, (now % LANES_PER_WORD).astype(np.uint64)
        place = np.ix_(self._sources, words)
        before, after = (
            (values[place] >> bits & np.uint64(1)).astype(np.uint8)
            for values in (self._settled, self._coming)
        )
        self._kept.append((before, after))
        self._kept_count += len(now)
        while self._kept_count >= 2 * self._samples:
            # Either of two, so that what is left is no more regular than what was chosen.
            pairs = np.arange(0, self._kept_count - 1, 2)
            left = pairs + self._rng.integers(2, size=len(pairs))
            before, after = self.kept
            self._kept = [(before[:, left], after[:, left])]
            self._kept_count = len(left)
            self._stretch *= 2
            self._stretches = -(-self._seen // self._stretch)
            self._chosen = self._chosen[:0]


def make_simulator(
    netlist: Netlist,
    lanes: int,
    glitches: "GlitchSampling | None" = None,
    *,
    state_words: int = 0,
) -> Simulator:
    """Make a simulator without delays; it can keep cycles if glitches are to be counted."""
    if glitches is None:
        return Simulator(netlist, lanes, state_words=state_words)
    return SampledSimulator(netlist, lanes, samples=glitches.samples, state_words=state_words)


def begin_samples(simulators: Iterable[Simulator]) -> None:
    """Let simulators keep cycles from now on, those that can."""
    for one in simulators:
        if isinstance(one, SampledSimulator):
            one.begin()


def end_samples(simulators: Iterable[Simulator]) -> None:
    """Let simulators keep no cycle any more."""
    for one in simulators:
        if isinstance(one, SampledSimulator):
            one.end()


class GlitchSampling:
    """What counts glitches of some hardware, run after run.

    Parameters
    ----------
    samples : int
        See `SampledSimulator`.
    state_words : int
        Words of lanes in which the states of the cells are counted, see `Simulator`.
    """

    def __init__(self, samples: int = SAMPLES, *, state_words: int = 0) -> None:
        self.samples = samples
        self.state_words = state_words
        self._replays: dict[str, tuple[Simulator, GlitchSimulator]] = {}

    def samples_of(
        self, simulators: Mapping[str, Simulator], timings: Mapping[str, Timing]
    ) -> dict[str, GlitchSamples]:
        """Go through the cycles that were kept again.

        Parameters
        ----------
        simulators : mapping of str to Simulator
            By unit; those that cannot keep cycles do not count.
        timings : mapping of str to Timing
            Longest paths of each unit, for its delays.  A unit is the same netlist each time.
        """
        found = {}
        for name, one in simulators.items():
            if isinstance(one, SampledSimulator):
                if name not in self._replays:
                    self._replays[name] = self._replay(one.netlist, timings[name])
                settled, delayed = (_counted(replay, *one.kept) for replay in self._replays[name])
                found[name] = GlitchSamples(settled=settled, delayed=delayed)
        return found

    def _replay(self, netlist: Netlist, timing: Timing) -> tuple[Simulator, GlitchSimulator]:
        lanes = LANES_PER_WORD * WORDS
        delays = library_delays(netlist, timing=timing)
        return (
            Simulator(netlist, lanes, state_words=self.state_words),
            GlitchSimulator(netlist, lanes, delays, state_words=self.state_words),
        )


def _counted(replay: Simulator, before: Bits, after: Bits) -> Activity:
    """Activity of cycles that another simulator has kept."""
    earlier = replay.activity()
    count = before.shape[1]
    for begin in range(0, count, replay.lanes):
        part = slice(begin, begin + replay.lanes)
        # What fills up the last words does not change.
        replay.replay(*(_packed(bits[:, part], after, replay.lanes) for bits in (before, after)))
    activity = replay.activity().since(earlier)
    toggles = activity.toggles.copy()
    if replay.netlist.clock is not None:
        toggles[:, replay.netlist.clock] = 2 * count
    return replace(activity, toggles=toggles, lane_cycles=np.array([count]))


def _packed(part: Bits, after: Bits, lanes: int) -> Words:
    """Words of lanes, filled up with the last one."""
    filling = np.repeat(after[:, -1:], lanes - part.shape[1], axis=1)
    full = np.concatenate([part, filling], axis=1)
    return np.packbits(full, axis=1, bitorder="little").view("<u8").astype(np.uint64)
