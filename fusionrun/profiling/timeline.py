"""From what the profiler saw of some steps to seconds by phase and by component.

The phases of a step follow each other, so that they and the rest add up to its time. Within
forward and backward the components do: a node of the backward graph bears the number of the
forward call that made it, and belongs to the component in whose range that call was.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

from fusionrun.profiling.ranges import (
    AUGMENTATION,
    BACKWARD,
    DATA,
    FORWARD,
    LOGGING,
    LOSSES,
    UPDATE,
    WHOLE,
)

__all__ = ["PHASES", "PHASES_OF_WHOLE", "REST", "Timeline", "timeline"]

REST: Final = "between them"
PHASES: Final = (DATA, AUGMENTATION, FORWARD, LOSSES, BACKWARD, UPDATE, LOGGING, REST)
PHASES_OF_WHOLE: Final = (DATA, AUGMENTATION, WHOLE, LOGGING, REST)
"""Where the step is one graph."""

NETWORK: Final = "the network around them"
_STEP: Final = "ProfilerStep"
_NODE: Final = "autograd::engine::evaluate_function: "


Times: TypeAlias = defaultdict[str, float]


def _times() -> Times:
    return defaultdict(float)


class Span(NamedTuple):
    """A stretch of time, in µs since some moment, and how long the device worked for it."""

    start: float
    end: float
    device_us: float = 0.0

    @property
    def us(self) -> float:
        """Its length."""
        return self.end - self.start

    def holds(self, moment: float) -> bool:
        """Whether a moment lies in it."""
        return self.start <= moment < self.end


@dataclass
class Timeline:
    """Microseconds of all steps together.

    Attributes:
        steps: how many.
        total: of the host, from each step's beginning to its end; an epoch's end is not in it.
        phases: of the host, by phase; they add up to `total`.
        device: of the device, by phase; all zero where the host computes.
        forward: by component; on a GPU of the device, else of the host.
        backward: likewise.
    """

    steps: int = 0
    total: float = 0.0
    phases: Times = field(default_factory=_times)
    device: Times = field(default_factory=_times)
    forward: Times = field(default_factory=_times)
    backward: Times = field(default_factory=_times)


def timeline(events: Iterable[Any], components: Collection[str], *, on_cuda: bool) -> Timeline:
    """Add up what `torch.profiler` has recorded of a trainer with its `Ranges` on.

    Args:
        events: `profile.events()`.
        components: names of the network's components.
        on_cuda: whether the device's time is asked for, not the host's.
    """
    seen = _Seen(events, components)
    found = Timeline()
    for step in seen.steps():
        found.steps += 1
        _add_phases(found, seen, step)
        _add_components(found, seen, step, components, on_cuda)
    return found


class _Seen:
    """The events, sorted: ranges by name, calls by the number of the node they make, nodes."""

    def __init__(self, events: Iterable[Any], components: Collection[str]) -> None:
        names = {DATA, AUGMENTATION, FORWARD, LOSSES, BACKWARD, UPDATE, LOGGING, *components}
        self.ranges: dict[str, list[Span]] = defaultdict(list)
        self.calls: dict[int, list[float]] = defaultdict(list)
        self.nodes: list[tuple[Span, int, bool]] = []
        for event in sorted(_of_host(events), key=lambda event: event.time_range.start):
            span = Span(event.time_range.start, event.time_range.end, event.device_time_total)
            if event.name.startswith(_STEP):
                self.ranges[_STEP].append(span)
            elif event.name in names:
                self.ranges[event.name].append(span)
            elif event.name.startswith(_NODE):
                gathers = event.name.endswith("AccumulateGrad")
                self.nodes.append((span, event.sequence_nr, gathers))
            elif event.sequence_nr >= 0 and not event.name.startswith("autograd::"):
                self.calls[event.sequence_nr].append(span.start)
        self._starts = {name: [span.start for span in own] for name, own in self.ranges.items()}
        self._node_starts = [node.start for node, _, _ in self.nodes]

    def steps(self) -> Iterator[Span]:
        """Each step, until its numbers were taken in: what an epoch's end takes comes behind."""
        for step in self.ranges[_STEP]:
            logged = self.within(LOGGING, step)
            if logged:
                yield Span(step.start, logged[-1].end)

    def within(self, name: str, outer: Span) -> list[Span]:
        """The ranges of a name that lie in another one."""
        starts, own = self._starts.get(name, []), self.ranges.get(name, [])
        first, end = bisect_right(starts, outer.start - 1e-3), bisect_right(starts, outer.end)
        return [span for span in own[first:end] if span.end <= outer.end + 1e-3]

    def nodes_within(self, outer: Span) -> list[tuple[Span, int, bool]]:
        """The nodes of the backward graph that are visited meanwhile."""
        first = bisect_left(self._node_starts, outer.start)
        return self.nodes[first : bisect_left(self._node_starts, outer.end)]

    def maker(self, number: int, before: float) -> float | None:
        """When the last call before a moment began that could have made the node of a number."""
        calls = self.calls.get(number, [])
        place = bisect_right(calls, before)
        return calls[place - 1] if place else None


def _of_host(events: Iterable[Any]) -> Iterator[Any]:
    """Without the kernels of a device, whose time is told with the calls that launch them."""
    return (event for event in events if event.device_type.name == "CPU")


def _add_phases(found: Timeline, seen: _Seen, step: Span) -> None:
    own = _times()
    for name in (DATA, AUGMENTATION, FORWARD, LOSSES, BACKWARD, UPDATE, LOGGING):
        for span in seen.within(name, step):
            own[name] += span.us
            # (a GPU's backward is launched by a thread of its own)
            nodes = seen.nodes_within(span) if name == BACKWARD else []
            found.device[name] += span.device_us or sum(node.device_us for node, _, _ in nodes)
    if seen.within(AUGMENTATION, step):  # (it asks for the batch itself)
        own[AUGMENTATION] -= own[DATA]
        found.device[AUGMENTATION] -= sum(span.device_us for span in seen.within(DATA, step))
    # Behind the last node, until the update, the step notes its losses and choices.
    for span in seen.within(BACKWARD, step):
        last = max((node.end for node, _, _ in seen.nodes_within(span)), default=span.end)
        own[BACKWARD] -= span.end - last
        own[LOGGING] += span.end - last
    if not seen.within(FORWARD, step):
        batches = [*seen.within(DATA, step), *seen.within(AUGMENTATION, step)]
        begins = max((batch.end for batch in batches), default=step.start)
        own[WHOLE] = seen.within(LOGGING, step)[0].start - begins
    own[REST] = step.us - sum(own.values())
    found.total += step.us
    for name, us in own.items():
        found.phases[name] += us


def _add_components(
    found: Timeline, seen: _Seen, step: Span, components: Collection[str], on_cuda: bool
) -> None:
    def length(span: Span) -> float:
        return span.device_us if on_cuda else span.us

    places = {name: seen.within(name, step) for name in (*components, LOSSES)}
    for name, spans in places.items():
        found.forward[name] += sum(map(length, spans))
    whole = sum(length(span) for span in seen.within(FORWARD, step))
    found.forward[NETWORK] += whole - sum(
        length(span) for name in components for span in places[name]
    )
    owner = NETWORK
    for span in seen.within(BACKWARD, step):
        for node, number, gathers in seen.nodes_within(span):
            # What gathers a gradient follows the node that gave it.
            owner = owner if gathers else _owner(seen, places, number, node.start)
            found.backward[owner] += length(node)


def _owner(seen: _Seen, places: Mapping[str, Sequence[Span]], number: int, before: float) -> str:
    made = seen.maker(number, before)
    if made is None:
        return NETWORK
    inside = (name for name, spans in places.items() if any(span.holds(made) for span in spans))
    return next(inside, NETWORK)
