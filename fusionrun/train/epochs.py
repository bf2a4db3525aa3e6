"""The epochs of a run: steps, validation, the choice of the best weights, early stopping.

What is read back from the device is read here, once an epoch. Between two steps a run is whole:
`Epochs.where` and the tensors beside it are all that going on from there takes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from fusionrun.models.network import Outputs
from fusionrun.plan.plan import Plan
from fusionrun.plan.text import counted
from fusionrun.schema.training import Selection
from fusionrun.train.assemble import loss_settings
from fusionrun.train.augment import Augmenter, BatchPart, batches_of
from fusionrun.train.epoch_log import EpochLog, Tally
from fusionrun.train.evaluate import split_logits
from fusionrun.train.frozen import FrozenExperts
from fusionrun.train.metrics import Metrics, path_metrics
from fusionrun.train.nonfinite import bad_epoch, bad_outputs, bad_step
from fusionrun.train.progress import Display, EpochNews
from fusionrun.train.ranks import Ranks
from fusionrun.train.recorder import Recorder
from fusionrun.train.step import Ask, AskLogits, Asks, Step, StepLog, TakeLogits, TakeStep
from fusionrun.train.tables import Table, epoch_order, spans
from fusionrun.train.where import Best, Patience, State, Where

Walk = Generator[Asks, Any, None]
"""What is to be computed; a `StepLog` for a batch is sent back, `Outputs` for a split's logits."""
LOWER_IS_BETTER = {"nll"}


class Epochs:
    """Runs a plan's epochs.

    Args:
        plan: rates, epochs, batch size, selection.
        step: whose network, updater and loss weights these are.
        take_step: takes one batch: by the step, or by a compiled form of it.
        take_logits: gives a split's logits as the weights are now.
        train: the training split; `val` the validation split, if there is one.
        ranks: those that train together.
        recorder: takes metrics, events and status.
        display: takes news for the user.
        between_steps: called before every batch, when the run is whole; may raise to end it.
        save: called with the best weights so far whenever they change; may choose not to write.
        augment: changes training batches; None: they are as in the table.
    """

    def __init__(
        self,
        plan: Plan,
        step: Step,
        take_step: TakeStep,
        take_logits: TakeLogits,
        train: Table,
        val: Table | None,
        ranks: Ranks,
        recorder: Recorder,
        display: Display,
        between_steps: Callable[[Epochs], None],
        save: Callable[[Best], None],
        augment: Augmenter | None = None,
    ) -> None:
        self._plan, self._settings = plan, plan.settings.training
        self._step, self._train, self._val = step, train, val
        self._take_step, self._take_logits = take_step, take_logits
        self._ranks, self._recorder, self._display = ranks, recorder, display
        self._frozen = FrozenExperts(plan, step, train, ranks)
        self._between_steps, self._save = between_steps, save
        self._augment = augment
        self._experts = tuple(plan.settings.experts)
        self._spans = spans(len(train), self._settings.batch_size)
        self._began = time.perf_counter()
        self.where = Where()
        self.best = Best()
        self.patience = Patience(self._settings.early_stopping)
        # The steps of the epoch that goes on.
        self.log = EpochLog()
        # Up to which step, counted from 1, gradients were looked at; and how many were left out.
        self._judged, self._left_out = 0, 0
        # Why not all epochs were run, in words.
        self.ended_early = ""

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.where.epoch

    @property
    def steps(self) -> int:
        """Steps done."""
        return self.where.steps

    def plain(self) -> dict[str, Any]:
        """Where the run stands, as JSON; between two steps only."""
        seconds = time.perf_counter() - self._began if self.where.batch else 0.0
        where = {**asdict(self.where), "seconds": seconds}
        return {"where": where, "best": self.best.plain(), "patience": self.patience.plain()}

    def take_back(self, plain: Mapping[str, Any], best: State, tally: Tally | None) -> None:
        """Go on from what `plain` gave, with the best weights and the open epoch's steps."""
        self.where = Where(**plain["where"])
        self.best = Best.from_plain(plain["best"], best)
        self.patience.take_back(plain["patience"])
        self.log = EpochLog(tally)
        self._judged = self.where.steps
        self._left_out = self._step.updater.nonfinite_steps()

    def check_finite(self) -> None:
        """Record the steps that were left out since the last call. All ranks call it.

        Raises:
            TrainingError: there were more than may be. The weights are those before the one too
                many; no step has moved them since.
        """
        left_out = self._step.updater.nonfinite_steps()
        if left_out > self._left_out and (tally := self.log.tally(self._ranks)):
            began = self.steps - len(tally.records)
            found = [(began + n + 1, n, groups) for n, groups in tally.nonfinite()]
            for step, n, groups in found:
                if step > self._judged:
                    self._judge(step, self._nonfinite_losses(tally, n), groups)
        self._judged, self._left_out = self.steps, left_out

    def _judge(self, step: int, losses: Sequence[str], groups: Sequence[str]) -> None:
        """One step that was left out: go on, or halt."""
        self._left_out += 1
        allowed = self._step.updater.max_skipped
        if self._left_out > allowed:
            self._take_back_to(step - 1)
            raise bad_step(self._plan, step, losses, groups, allowed)
        self._recorder.event("step_skipped", step=step, losses=losses, gradients=groups)

    def _take_back_to(self, steps: int) -> None:
        """The steps after these moved no weights: nobody shall read that the run came further."""
        more = self.steps - steps
        self.where = replace(self.where, batch=self.where.batch - more, steps=steps)

    def _nonfinite_losses(self, tally: Tally, number: int) -> list[str]:
        losses, _ = self._step.weights.summary(tally.losses[number].tolist())
        return [name for name, value in losses.items() if not math.isfinite(value)]

    def run(self) -> None:
        """All epochs that are left, or until early stopping.

        Raises:
            TrainingError: a loss or gradient was not finite.
            Exception: whatever `between_steps` raises; the run is then whole.
        """
        walk = self.walk()
        ask = next(walk, None)
        while ask is not None:
            try:
                ask = walk.send(self._answer(ask))
            except StopIteration:
                return

    def _answer(self, ask: Asks) -> StepLog | Outputs:
        """What is wanted, of the run by itself."""
        return self._take_step(ask) if isinstance(ask, Ask) else self._take_logits(ask.table)

    def walk(self) -> Walk:
        """As `run`, but for what is computed: each batch is handed out, and what its step leaves
        wanted back; so is the validation split. So several runs can be led through their epochs
        side by side.
        """
        while self.where.epoch < self._settings.epochs:
            score = yield from self._one_epoch(self.where.epoch)
            self.where = Where(self.where.epoch + 1, 0, self.where.steps)
            self.log = EpochLog()
            spent = self._in_last_stage and self.patience.spent(score)
            every_s = self._recorder.status_every_s
            self._recorder.status("running", self.epoch, self.steps, at_most_every_s=every_s)
            if spent:
                self._recorder.event("early_stop", epochs=self.epoch, best_epoch=self.best.epoch)
                self.ended_early = f"stopped early after epoch {self.epoch}: {self._no_gain()}"
                return

    @property
    def _in_last_stage(self) -> bool:
        """Whether it may end early: no stage before the last is cut short."""
        stages = self._plan.stages
        return not stages or self.where.epoch > stages[-1].first_epoch

    def _no_gain(self) -> str:
        """Why the run stops early, in words."""
        settings, chosen = self.patience.settings, self._settings.selection
        assert settings is not None
        least = f" over {settings.min_delta:g}" if settings.min_delta else ""
        waited = counted(settings.patience, "epoch")
        return f"no gain{least} in {chosen.path} {chosen.metric} for {waited}"

    def _one_epoch(self, epoch: int) -> Generator[Asks, Any, float]:
        """Train and validate one epoch; returns the selected metric, higher is better."""
        self._enter_stage(epoch)
        rates = {name: c.rates[epoch] for name, c in self._plan.components.items()}
        frozen = {n for n, c in self._plan.components.items() if c.is_frozen(epoch)}
        self._step.updater.set_rates({n: None if n in frozen else r for n, r in rates.items()})
        self._frozen.begin(epoch)
        order = epoch_order(len(self._train), self._plan.seed, epoch, self._train.labels.device)
        self._began = time.perf_counter() - self.where.seconds
        self._recorder.pace.begin(self.steps)
        yield from self._steps_of(order)
        self.check_finite()
        record = self._summary()
        self._recorder.pace.take(self.steps)
        seconds = time.perf_counter() - self._began
        validation = yield from self._validate()
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
        if stage := self._plan.stage_at(epoch):
            record["stage"] = stage.stage
        self._recorder.epoch(record)
        self._display(self._news(record))
        return self._score(validation)[0]

    def _enter_stage(self, epoch: int) -> None:
        """Each stage has losses of its own."""
        stage = self._plan.stage_at(epoch)
        if stage is None:
            return
        self._step.weigh(loss_settings(self._plan, epoch))
        if epoch == stage.first_epoch and not self.where.batch:
            self._recorder.event("stage", stage=stage.stage, epoch=epoch, epochs=stage.epochs)

    def _steps_of(self, order: Tensor) -> Walk:
        """The batches of an epoch that are left."""
        spans = self._spans[self.where.batch :]
        parts = [BatchPart(self.steps + n, *s, *self._ranks.share(*s)) for n, s in enumerate(spans)]
        batches = batches_of(self._train, order, parts, self._augment)
        for part in parts:
            self._between_steps(self)
            batch = next(batches)
            known = self._frozen.known(order, part.first, part.end)
            log = yield Ask(batch, part.stop == len(order), part.stop - part.start, known)
            self.log.add(log, batch.labels)
            self.where.batch += 1
            self.where.steps += 1

    def _summary(self) -> dict[str, Any]:
        """Mean losses, training accuracy and gradient norms of an epoch."""
        tally = self.log.tally(self._ranks)
        if tally is None:
            raise RuntimeError("an epoch without batches")
        norms = self._step.updater.summarize(tally.records)
        means, weights = tally.mean_losses(), self._step.weights
        losses, weighted = weights.summary(means)
        if bad := [name for name, value in losses.items() if not math.isfinite(value)]:
            raise bad_epoch(self._plan, bad, self.steps)
        moved = {"loss_weights": now} if (now := weights.now()) else {}
        weights.end_epoch(means)
        paths = ["global", *(self._experts if heads_trained(self._plan) else ())]
        return {
            "loss": losses,
            "weighted_loss": weighted,
            **moved,
            "train_accuracy": dict(zip(paths, tally.accuracy(), strict=False)),
            "gradient_norm": {name: s.mean for name, s in norms.items()},
            "clipped_share": {name: s.clipped_share for name, s in norms.items()},
            "skipped_steps": len(tally.nonfinite()),
        }

    def _validate(self) -> Generator[Asks, Any, dict[str, Metrics] | None]:
        if self._val is None:
            return None
        found = {}
        if self._ranks.is_first:
            outputs = yield AskLogits(self._val)
            found = judged(self._plan, outputs, self._val.labels)
        return self._ranks.from_first(found)

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
        state = copied_state(self._step) if self._ranks.is_first else {}
        self.best = Best(epoch, self.steps, score, selected, state)
        self._save(self.best)
        return True

    def _news(self, record: Mapping[str, Any]) -> EpochNews:
        rates, step_s = record["rates"], self._recorder.pace.step_s
        steps_s = record["seconds"] if step_s is None else step_s * len(self._spans)
        return EpochNews(
            epoch=record["epoch"] + 1,
            loss=record["loss"]["total"],
            train_accuracy=record["train_accuracy"]["global"],
            val_accuracy=record["val"]["global"]["accuracy"] if record["val"] else None,
            best=record["best"],
            rates=(rates[f"experts.{self._experts[0]}"], rates["fusion"]),
            samples_per_s=len(self._train) / steps_s,
            steps_s=steps_s,
        )


def heads_trained(plan: Plan) -> bool:
    """Whether the experts' heads learn the labels, so that their accuracy means something.

    Of several stages in each: where an expert moves and its head does not, it says nothing.
    """
    taught = all(losses["lambda_loss"] > 0 for losses in plan.losses)
    return taught or not plan.settings.fusion.uses_features


def evaluated(plan: Plan, step: Step, table: Table) -> dict[str, Metrics]:
    """The metrics of every path on a split, as `judged` gives them."""
    return judged(plan, split_logits(step.network, table, step.precision), table.labels)


def judged(plan: Plan, outputs: Outputs, labels: Tensor) -> dict[str, Metrics]:
    """The metrics of every path on a split.

    Args:
        plan: of the run.
        outputs: of all rows.
        labels: theirs.

    Raises:
        TrainingError: a path gives no finite numbers: the last step of an epoch broke the
            weights, after its own loss was still finite.
    """
    names = tuple(plan.settings.experts)
    paths = path_metrics(*outputs, labels, names, heads_trained(plan))
    bad = [path for path, metrics in paths.items() if not math.isfinite(metrics["nll"])]
    if bad:
        raise bad_outputs(plan, bad)
    return paths


def copied_state(step: Step) -> State:
    """A copy of every component's tensors, on the CPU."""
    return {
        name: {key: tensor.detach().to("cpu", copy=True) for key, tensor in m.state_dict().items()}
        for name, m in step.network.components().items()
    }
