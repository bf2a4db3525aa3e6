"""Every error that fusionrun raises on purpose. This module imports nothing of the project.

    FusionrunError              exit code 1: the run failed
    ├── UserError               exit code 2: the recipe or the command line is wrong
    │   ├── RecipeError         carries every `Problem` found, in file order
    │   ├── DataError           the data set is missing, or not what the recipe says
    │   ├── InexactError        going on would not end with the bits of the undisturbed run
    │   └── NotYetError         valid, but this version cannot carry it out
    ├── RunNotFoundError        exit code 3: no such run, or more than one
    ├── SchedulerError          exit code 4: the scheduler refused, or is out of reach
    ├── ComponentError          a component file is damaged or does not fit
    ├── BusyError               another process is at it
    └── TrainingError           training cannot go on (a loss that is not finite, …)

A known error is shown as its message alone; `fusionrun --debug` adds the traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = [
    "BusyError",
    "ComponentError",
    "DataError",
    "FusionrunError",
    "InexactError",
    "NotCompiledError",
    "NotYetError",
    "Place",
    "Problem",
    "RecipeError",
    "RunNotFoundError",
    "SchedulerError",
    "TrainingError",
    "UserError",
]


class Place(NamedTuple):
    """Where something stands in a text the user wrote.

    Attributes:
        order: rank of the text among those read (the recipe before the `--set` arguments).
        line: counted from 1; 0 when the text has no lines (a command-line argument).
        column: counted from 1, in characters.
        source: file name as the user gave it, or `--set`.
        text: the whole line, without its line break.
        length: how many characters the thing takes on that line, at least 1.
    """

    order: int
    line: int
    column: int
    source: str
    text: str = ""
    length: int = 1

    def __str__(self) -> str:
        return ":".join([self.source, *(str(n) for n in (self.line, self.column) if self.line)])


class Problem(NamedTuple):
    """One thing that is wrong with what a user wrote.

    Attributes:
        place: where it stands; None when it stands nowhere (a view that a file lacks).
        key: the dotted key it is about, such as `fusion.type`.
        got: what came, ready to print; empty when nothing came.
        expected: what would have been right, ready to print.
        fix: what to do about it: a whole sentence or a question ("did you mean …?").
    """

    place: Place | None
    key: str
    got: str = ""
    expected: str = ""
    fix: str = ""

    def render(self) -> str:
        """The problem as a block of text: place and key, the source line, then what and how."""
        lines = [f"{self.place}  {self.key}" if self.place else self.key]
        if self.place and self.place.text:
            number = str(self.place.line) if self.place.line else ""
            margin = " " * len(number)
            lead = "".join(
                "\t" if c == "\t" else " " for c in self.place.text[: self.place.column - 1]
            )
            lines.append(f"  {number} | {self.place.text}")
            lines.append(f"  {margin} | {lead}{'^' * self.place.length}")
        if self.got:
            lines.append(f"  got       {self.got}")
        if self.expected:
            lines.append(f"  expected  {self.expected}")
        if self.fix:
            lines.append(f"  {self.fix}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, object]:
        """The same for programs, null where nothing is known."""
        place = self.place
        return {
            "file": place.source if place else None,
            "line": place.line or None if place else None,
            "column": place.column or None if place else None,
            "key": self.key,
            "got": self.got or None,
            "expected": self.expected or None,
            "fix": self.fix or None,
        }


class FusionrunError(Exception):
    """Root of the tree: anything fusionrun knows how to explain.

    Attributes:
        exit_code: that a command ends with.
        problems: of which the message is made, where it is made of such.
    """

    exit_code = 1
    problems: tuple[Problem, ...] = ()

    def __init__(self, what: str | Problem = "") -> None:
        if isinstance(what, Problem):
            self.problems, what = (what,), what.render()
        super().__init__(what)

    def to_json(self) -> dict[str, object]:
        """For programs: every key is always there, null where nothing is known."""
        return {
            "error": type(self).__name__,
            "message": str(self),
            "exit_code": self.exit_code,
            "problems": [problem.to_json() for problem in self.problems],
        }


class UserError(FusionrunError):
    """The recipe or the command line is wrong; nothing was started."""

    exit_code = 2


class RecipeError(UserError):
    """A recipe that cannot be read. `problems` holds all of them, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(
            sorted(problems, key=lambda p: (p.place is None, p.place or Place(0, 0, 0, "")))
        )
        super().__init__("\n\n".join(problem.render() for problem in self.problems))


class DataError(UserError):
    """The data set is missing, unreadable, or not what the recipe says."""


class InexactError(UserError):
    """A run would go on otherwise than it began; nothing of it was changed.

    Attributes:
        differences: what is not as it was, a line each.
    """

    def __init__(
        self, where: object, differences: Sequence[str], resume: str = "fusionrun resume RUN"
    ) -> None:
        lines = "".join(f"\n  {line}" for line in differences)
        super().__init__(
            f"{where}: going on from here would not end with the bits of the undisturbed run, "
            f"since it is not as it was:{lines}\n"
            f"  Fix: put it back; or go on all the same: {resume} --allow-inexact"
        )
        self.differences = tuple(differences)


class NotYetError(UserError):
    """The recipe is valid, and this version of fusionrun cannot carry that part out."""


class RunNotFoundError(FusionrunError):
    """No such run, or more than one that could be meant."""

    exit_code = 3


class SchedulerError(FusionrunError):
    """The scheduler refused, or is out of reach."""

    exit_code = 4


class ComponentError(FusionrunError):
    """A component's file is missing, damaged, or does not fit where it should go."""


class BusyError(FusionrunError):
    """Another process trains the run; nothing was touched."""


class TrainingError(FusionrunError):
    """Training cannot go on.

    Attributes:
        what: happened, without what to do about it.
        fix: what to do, as an order; empty where nobody knows.
        repeats: whether the run as it is would only come to the same end again.
    """

    def __init__(self, what: str, fix: str = "", *, repeats: bool = False) -> None:
        again = "" if repeats else "; then `fusionrun resume` goes on"
        super().__init__(f"{what}\n  Fix: {fix}{again}" if fix else what)
        self.what, self.fix, self.repeats = what, fix, repeats


class NotCompiledError(TrainingError):
    """A training step cannot be compiled; nothing of it was taken.

    Args:
        said: by the compiler, or by who traces for it.
        killer: the signal that ended the compiler: that need not come again.
    """

    def __init__(self, said: str, killer: str = "") -> None:
        if killer:
            what = f"the compiler was ended from outside, by {killer}"
            super().__init__(what, "give the job more memory, if that ran out")
            return
        what = f"the step cannot be compiled: {said}"
        super().__init__(what, "train it with training.engine: eager", repeats=True)
