"""Several runs trained side by side in one process: each an attempt of its own, their steps as one.

Every run has its directory, its lock, its records, checkpoints and components, as it has by itself;
what happens to one of them, an early end, a loss that is not finite, a request to stop, happens to
none of the others. Which runs may be trained so is for `fusionrun.plan.together` to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from statistics import fmean
from typing import Final, TypeVar

from fusionrun.data.header import DataSummary
from fusionrun.data.load import Rows, load_data
from fusionrun.errors import FusionrunError, TrainingError
from fusionrun.models.network import Outputs
from fusionrun.schema.data import Data
from fusionrun.store.layout import RunLayout
from fusionrun.store.status import read_status
from fusionrun.train.alone import alone
from fusionrun.train.attempt import Attempt
from fusionrun.train.boundary import Interrupted
from fusionrun.train.epochs import Walk
from fusionrun.train.made import Beside, Made
from fusionrun.train.progress import Display, EpochNews, progress
from fusionrun.train.ranks import SINGLE
from fusionrun.train.recorder import Recorder
from fusionrun.train.step import Asks, StepLog
from fusionrun.train.stop import Signals, StopRequest, signals_heard
from fusionrun.train.together import SideBySide, Together

__all__ = ["run_together"]

T = TypeVar("T")

Tell = Callable[[RunLayout, FusionrunError], None]

STOPPED: Final = "the run was asked to stop, and has saved where it is"


def _nobody(layout: RunLayout, error: FusionrunError) -> None:
    """Tell nobody."""


def run_together(layouts: Sequence[RunLayout], tell: Tell = _nobody) -> dict[str, FusionrunError]:
    """Train runs side by side, each from its newest whole checkpoint if any.

    Args:
        layouts: their directories, each with a plan in it, whose networks have the same shapes.
        tell: takes what ends a run that does not complete, at once: the others may take hours.

    Returns:
        What ended a run that did not complete, by its id.

    Raises:
        KeyboardInterrupt: a person interrupted it; checkpoints and best weights are saved.
    """
    memory, load = SideBySide(len(layouts)), _Loader()
    with signals_heard() as signals, ExitStack() as stack:
        members = {
            number: stack.enter_context(
                _member(layout, signals, Beside(memory.place_of(number), len(layouts), load), tell)
            )
            for number, layout in enumerate(layouts)
        }
        try:
            _train(members, memory)
        except BaseException as error:
            # It came in what they have in common: an interrupt in mid-step, or no memory left.
            for member in members.values():
                member.ends_with(error)
            raise
    if any(member.was_interrupted for member in members.values()):
        raise KeyboardInterrupt
    return {m.layout.id: m.error for m in members.values() if m.error is not None}


def _train(members: Mapping[int, _Member], memory: SideBySide) -> None:
    made = {number: m.made for number, m in members.items() if m.made is not None}
    if not made:
        return
    total = max(own.plan.settings.training.epochs for own in made.values())
    done = min(own.epochs_done for own in made.values())
    with progress(total, done) as display:
        news = _Means(display, {number: own.epochs_done for number, own in made.items()})
        together = Together({number: own.step for number, own in made.items()}, memory)
        asks = {number: members[number].begin(news.of(number)) for number in made}
        while going := {number: ask for number, ask in asks.items() if ask is not None}:
            for number in [n for n in news.going if n not in going]:
                news.ended(number)
            answers = together(going)
            asks = {number: members[number].goes_on(answers[number]) for number in going}


@dataclass
class _Member:
    """One of the runs.

    Attributes:
        layout: its directory.
        attempt: at it.
        stop: who asks it to stop.
        tell: takes what ends it, if that was an error or a request to stop.
        made: what trains it; None: it could not begin, or has ended.
        error: what ended it, if it was an error or a request to stop.
        was_interrupted: whether a person at the keyboard has ended it.
    """

    layout: RunLayout
    attempt: Attempt
    stop: StopRequest
    tell: Tell
    made: Made | None = None
    error: FusionrunError | None = None
    was_interrupted: bool = False
    _walk: Walk | None = field(default=None, repr=False)

    def make(self, beside: Beside) -> None:
        """Everything that trains it."""
        self.made = self._guarded(lambda: self.attempt.make(False, beside))

    def begin(self, display: Display) -> Asks | None:
        """What it wants first; None where there is nothing to do."""
        made = self.made
        assert made is not None

        def first() -> Asks | None:
            self._walk = self.attempt.epochs_of(made, self.stop, display).walk()
            return self._next(lambda walk: next(walk))

        return self._guarded(first)

    def goes_on(self, answer: StepLog | Outputs) -> Asks | None:
        """What it wants next, after what it wanted before was done; None: it has ended."""
        return self._guarded(lambda: self._next(lambda walk: walk.send(answer)))

    def _next(self, move: Callable[[Walk], Asks]) -> Asks | None:
        assert self._walk is not None
        assert self.made is not None
        try:
            return move(self._walk)
        except StopIteration:
            self.attempt.finish(self.made)
        except Interrupted as asked:
            self.attempt.stopped(asked)
            self.fails(TrainingError(STOPPED))
        self._let_go()
        return None

    def ends_with(self, error: BaseException) -> None:
        """Record what has ended all of them, unless it had ended already."""
        if self.made is None:
            return

        def raise_it() -> None:
            raise error

        with suppress(Exception):  # (it is on its way already)
            self._guarded(raise_it)

    def fails(self, error: FusionrunError) -> None:
        """It does not complete."""
        self.error = error
        self.tell(self.layout, error)

    def _guarded(self, act: Callable[[], T]) -> T | None:
        """What happens to this run alone."""
        try:
            with self.attempt.recorded():
                return act()
        except FusionrunError as error:
            self.fails(error)
        except KeyboardInterrupt:
            self.was_interrupted = True
        except Exception:
            self._let_go()
            raise
        self._let_go()
        return None

    def _let_go(self) -> None:
        self.made = self._walk = None


@contextmanager
def _member(layout: RunLayout, signals: Signals, beside: Beside, tell: Tell) -> Iterator[_Member]:
    """A run that is made, or has said why it cannot be; locked while the block runs."""
    attempt = Attempt(layout, SINGLE, Recorder(layout, runs=beside.runs))
    member = _Member(layout, attempt, StopRequest(signals, layout.stop_request), tell)
    with ExitStack() as stack:
        try:
            stack.enter_context(alone(layout, SINGLE))
        except FusionrunError as error:
            member.fails(error)
        else:
            stack.callback(attempt.close)
            if read_status(layout).state != "completed":  # (nothing is done to one that has)
                member.make(beside)
        yield member


class _Loader:
    """Loads data; a run that reads the rows of the one before it gets the same."""

    def __init__(self) -> None:
        self._last: tuple[object, dict[str, Rows]] | None = None

    def __call__(self, data: Data, summary: DataSummary) -> dict[str, Rows]:
        key = (data, summary.to_json())
        if self._last is None or self._last[0] != key:
            self._last = (key, load_data(data, summary))
        return self._last[1]


class _Means:
    """News of several runs as that of one: their means, once all have come that far.

    Args:
        display: of the means.
        done: the epochs that an earlier attempt at each run has done; of these come no news, and
            who is behind does not wait for them.
    """

    def __init__(self, display: Display, done: Mapping[int, int]) -> None:
        self._display, self._done = display, done
        self._news: dict[int, dict[int, EpochNews]] = {run: {} for run in done}

    @property
    def going(self) -> tuple[int, ...]:
        """The runs that have not ended."""
        return tuple(self._news)

    def of(self, run: int) -> Display:
        """Takes the news of one run."""

        def take(news: EpochNews) -> None:
            self._news[run][news.epoch] = news
            self._show(news.epoch)

        return take

    def ended(self, run: int) -> None:
        """The others need not wait for it."""
        del self._news[run]
        for epoch in sorted({epoch for own in self._news.values() for epoch in own}):
            self._show(epoch)

    def _show(self, epoch: int) -> None:
        awaited = [own for run, own in self._news.items() if self._done[run] < epoch]
        if awaited and all(epoch in own for own in awaited):
            self._display(_mean(epoch, [own.pop(epoch) for own in awaited]))


def _mean(epoch: int, news: Sequence[EpochNews]) -> EpochNews:
    validated = [each.val_accuracy for each in news if each.val_accuracy is not None]
    expert, fusion = (fmean(rates) for rates in zip(*(each.rates for each in news), strict=True))
    return EpochNews(
        epoch=epoch,
        loss=fmean(each.loss for each in news),
        train_accuracy=fmean(each.train_accuracy for each in news),
        val_accuracy=fmean(validated) if validated else None,
        best=any(each.best for each in news),
        rates=(expert, fusion),
        samples_per_s=sum(each.samples_per_s for each in news),
        steps_s=fmean(each.steps_s for each in news),
    )
