"""The epochs of a run: steps, validation, the choice of the best weights, early stopping.

What is read back from the device is read here, once an epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fusionrun.errors import TrainingError
from fusionrun.plan.plan import Plan
from fusionrun.schema.training import EarlyStopping, Selection
from fusionrun.train.evaluate import split_logits
from fusionrun.train.losses import term_names, term_weights
from fusionrun.train.metrics import Metrics, path_metrics
from fusionrun.train.progress import Display, EpochNews
from fusionrun.train.recorder import Recorder
from fusionrun.train.step import Step, StepLog
from fusionrun.train.stop import StopRequest
from fusionrun.train.tables import Table, epoch_order, spans

State = Mapping[str, Mapping[str, Tensor]]
LOWER_IS_BETTER = {"nll"}
_FIX = "Fix: a lower learning rate, a gradient clip, or precision float32"


class Interrupted(Exception):
    """Someone asked the run to stop, and it has stopped at a step boundary."""


@dataclass
class Best:
    """The best weights so far, and what made them so.

    Attributes:
        epoch: counted from 0; -1 before the first.
        step: steps taken by its end.
        score: of the selected metric, negated where lower is better; then the negated nll.
        value: of the selected metric, as it is; None where there is no validation split.
        state: a copy of all components.
    """

    epoch: int = -1
    step: int = 0
    score: tuple[float, float] = (-math.inf, -math.inf)
    value: float | None = None
    state: State = field(default_factory=dict)


@dataclass
class Patience:
    """Epochs without improvement."""

    settings: EarlyStopping | None
    reference: float = -math.inf
    waited: int = 0

    def spent(self, score: float) -> bool:
        """Take in one epoch's score; whether it is time to stop."""
        if self.settings is None:
            return False
        if score > self.reference + self.settings.min_delta:
            self.reference, self.waited = score, 0
        else:
            self.waited += 1
        return self.waited >= self.settings.patience


class Epochs:
    """Runs a plan's epochs.

    Args:
        plan: rates, epochs, batch size, selection.
        step: takes one batch.
        train: the training split; `val` the validation split, if there is one.
        recorder: takes metrics, events and status.
        display: takes news for the user.
        stop: asked at every step boundary.
        save: called with the best weights so far whenever they change; may choose not to write.
    """

    def __init__(
        self,
        plan: Plan,
        step: Step,
        train: Table,
        val: Table | None,
        recorder: Recorder,
        display: Display,
        stop: StopRequest,
        save: Callable[[Best], None],
    ) -> None:
        self._plan, self._settings = plan, plan.settings.training
        self._step, self._train, self._val = step, train, val
        self._recorder, self._display, self._stop, self._save = recorder, display, stop, save
        self._experts = tuple(plan.settings.experts)
        self._spans = spans(len(train), self._settings.batch_size)
        self.best = Best()
        # Epochs done.
        self.epoch = 0
        self.steps = 0

    def run(self) -> None:
        """All epochs, or until early stopping.

        Raises:
            Interrupted: the run was asked to stop; `best` holds what there is.
            TrainingError: a loss or gradient was not finite.
        """
        patience = Patience(self._settings.early_stopping)
        for epoch in range(self._settings.epochs):
            score = self._one_epoch(epoch)
            self.epoch = epoch + 1
            self._recorder.status("running", self.epoch, self.steps, force=False)
            if patience.spent(score):
                self._recorder.event("early_stop", epoch=self.epoch, best_epoch=self.best.epoch)
                return

    def _one_epoch(self, epoch: int) -> float:
        """Train and validate one epoch; returns the selected metric, higher is better."""
        rates = {name: c.rates[epoch] for name, c in self._plan.components.items()}
        self._step.updater.set_rates(rates)
        order = epoch_order(len(self._train), self._plan.seed, epoch, self._train.labels.device)
        began = time.perf_counter()
        logs = self._steps_of(order)
        record = self._summary(logs, order)
        seconds = time.perf_counter() - began
        validation = self._validate()
        improved = self._choose(epoch, validation)
        record |= {
            "epoch": epoch,
            "step": self.steps,
            "val": validation,
            "rates": rates,
            "seconds": seconds,
            "samples_per_s": len(order) / seconds,
            "best": improved,
        }
        self._recorder.epoch(record)
        self._display(self._news(record))
        return self._score(validation)[0]

    def _steps_of(self, order: Tensor) -> list[StepLog]:
        logs = []
        for start, stop in self._spans:
            if self._stop.requested:
                raise Interrupted
            batch = self._train.batch(order[start:stop])
            logs.append(self._step(batch, last_in_epoch=stop == len(order)))
            self.steps += 1
        return logs

    def _summary(self, logs: Sequence[StepLog], order: Tensor) -> dict[str, Any]:
        """Mean losses, training accuracy and gradient norms of an epoch."""
        samples = torch.tensor([log.samples for log in logs], dtype=torch.float64)
        terms = torch.stack([log.terms for log in logs]).to("cpu", torch.float64)
        means = (terms * samples[:, None]).sum(0) / samples.sum()
        norms = self._step.updater.summarize(log.record for log in logs)
        names = term_names(self._experts, self._step.losses)
        losses = dict(zip(names, means.tolist(), strict=True))
        _refuse_nonfinite(losses, {n: s.nonfinite for n, s in norms.items()}, self.steps)
        weights = dict(zip(names, term_weights(self._experts, self._step.losses), strict=True))
        return {
            "loss": losses,
            "weighted_loss": {name: losses[name] * weight for name, weight in weights.items()},
            "train_accuracy": self._train_accuracy(logs, order),
            "gradient_norm": {name: s.mean for name, s in norms.items()},
            "clipped_share": {name: s.clipped_share for name, s in norms.items()},
        }

    def _train_accuracy(self, logs: Sequence[StepLog], order: Tensor) -> dict[str, float]:
        labels = self._train.labels.index_select(0, order)
        chosen = torch.cat([log.overall for log in logs])[None]
        paths = ["global"]
        if self._heads_trained:
            chosen = torch.cat([chosen, torch.cat([log.experts for log in logs], dim=1)])
            paths += self._experts
        hits = (chosen == labels).double().mean(1).tolist()
        return dict(zip(paths, hits, strict=True))

    @property
    def _heads_trained(self) -> bool:
        return heads_trained(self._plan)

    def _validate(self) -> dict[str, Metrics] | None:
        if self._val is None:
            return None
        return evaluated(self._plan, self._step, self._val)

    def _score(self, validation: Mapping[str, Metrics] | None) -> tuple[float, float]:
        """What is compared: the selected metric, higher is better; then the nll, negated."""
        if validation is None:
            return (float(self.steps), 0.0)  # no validation split: the last epoch is the best
        selection: Selection = self._settings.selection
        metrics = validation[selection.path]
        sign = -1 if selection.metric in LOWER_IS_BETTER else 1
        return (sign * metrics[selection.metric], -metrics["nll"])

    def _choose(self, epoch: int, validation: Mapping[str, Metrics] | None) -> bool:
        score = self._score(validation)
        if not score > self.best.score:
            return False
        value = validation and validation[self._settings.selection.path]
        selected = value[self._settings.selection.metric] if value else None
        self.best = Best(epoch, self.steps, score, selected, copied_state(self._step))
        self._save(self.best)
        return True

    def _news(self, record: Mapping[str, Any]) -> EpochNews:
        rates = record["rates"]
        return EpochNews(
            epoch=record["epoch"] + 1,
            loss=record["loss"]["total"],
            train_accuracy=record["train_accuracy"]["global"],
            val_accuracy=record["val"]["global"]["accuracy"] if record["val"] else None,
            best=record["best"],
            rates=(rates[f"experts.{self._experts[0]}"], rates["fusion"]),
            samples_per_s=record["samples_per_s"],
        )


def heads_trained(plan: Plan) -> bool:
    """Whether the experts' heads learn the labels, so that their accuracy means something."""
    settings = plan.settings
    return settings.knowledge_transfer.lambda_loss > 0 or not settings.fusion.uses_features


def evaluated(plan: Plan, step: Step, table: Table) -> dict[str, Metrics]:
    """The metrics of every path on a split.

    Raises:
        TrainingError: a path gives no finite numbers: the last step of an epoch broke the
            weights, after its own loss was still finite.
    """
    experts, overall = split_logits(step.network, table, step.precision)
    names = tuple(plan.settings.experts)
    paths = path_metrics(experts, overall, table.labels, names, heads_trained(plan))
    bad = [path for path, metrics in paths.items() if not math.isfinite(metrics["nll"])]
    if bad:
        raise TrainingError(f"the network's outputs are not finite: {', '.join(bad)}. {_FIX}")
    return paths


def copied_state(step: Step) -> State:
    """A copy of every component's tensors, on the CPU."""
    return {
        name: {key: tensor.detach().to("cpu", copy=True) for key, tensor in m.state_dict().items()}
        for name, m in step.network.components().items()
    }


def _refuse_nonfinite(losses: Mapping[str, float], norms: Mapping[str, int], steps: int) -> None:
    bad = [f"loss {name}" for name, value in losses.items() if not math.isfinite(value)]
    bad += [f"gradient of {name}" for name, count in norms.items() if count]
    if bad:
        raise TrainingError(
            f"not finite in the epoch that ended at step {steps}: {', '.join(bad)}. {_FIX}"
        )
