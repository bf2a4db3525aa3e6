"""One attempt at a run: all that trains it, made; its end recorded, whatever it is; its results.

It reads `plan.json` and the data that names, and nothing the user may have edited since. Where an
earlier attempt has left a checkpoint it goes on from there, to the same bits.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Literal

import torch

from fusionrun.data.content import content_hash
from fusionrun.data.load import Rows, rows_hash
from fusionrun.errors import InexactError, NotCompiledError, TrainingError
from fusionrun.plan.plan import Plan
from fusionrun.plan.stored import read_plan
from fusionrun.store.atomic import write_json
from fusionrun.store.checkpoints import remove_checkpoints
from fusionrun.store.disk_errors import in_words, way_out
from fusionrun.store.layout import RunLayout
from fusionrun.store.status import State as RunState
from fusionrun.store.status import how_it_stood, read_status
from fusionrun.train.assemble import (
    asked_metrics,
    choose_device,
    half_on_cpu,
    loss_settings,
    make_network,
    make_tables,
    make_updater,
    prepare_process,
)
from fusionrun.train.augment import augmenter_of
from fusionrun.train.boundary import Boundary, Interrupted
from fusionrun.train.buffers import own_memory
from fusionrun.train.checkpoint import Loaded, Origin, newest_whole
from fusionrun.train.circumstances import circumstances
from fusionrun.train.component_saver import NEVER_TOUCHED, TOUCHED_ONCE, ComponentSaver
from fusionrun.train.engines import TOGETHER, engine_of, take_step, why_engine
from fusionrun.train.environment import environment
from fusionrun.train.epochs import Epochs, copied_state, evaluated
from fusionrun.train.evaluate import split_logits
from fusionrun.train.exact_form import no_exact_form
from fusionrun.train.made import Beside, Made
from fusionrun.train.progress import Display, progress
from fusionrun.train.rank_errors import record_error
from fusionrun.train.ranks import Ranks
from fusionrun.train.recorder import Recorder
from fusionrun.train.saver import Saver, tidy
from fusionrun.train.starts import starting_tensors
from fusionrun.train.step import AskLogits, Step
from fusionrun.train.stop import INTERRUPT, StopRequest
from fusionrun.train.tables import full_batch
from fusionrun.train.together import SideBySide, Together
from fusionrun.train.where import Best

__all__ = ["Attempt", "Outcome"]

NOT_GONE_ON = "it was not gone on with, as it would not end with the same bits"

Outcome = Literal["completed", "stopped"]


class Attempt:
    """One attempt at a run."""

    def __init__(self, layout: RunLayout, ranks: Ranks, recorder: Recorder) -> None:
        self._layout, self._ranks, self._recorder = layout, ranks, recorder
        self._plan: Plan | None = None
        self._epochs: Epochs | None = None
        self._saver: Saver | None = None
        self._stood: RunState = "stopped"
        self._came_before = (0, 0)
        self._components: ComponentSaver | None = None
        # What its lines on the screen begin with.
        self._called = ""

    def run(self, stop: StopRequest, fresh: bool) -> Outcome:
        """Train, choose the best weights, touch the test split once, save.

        Raises:
            KeyboardInterrupt: a person stopped it, and a checkpoint is saved.
        """
        made = self.make(fresh)
        # Or all ranks would drop the same features, each of its own rows.
        torch.manual_seed(made.plan.seed + (self._ranks.rank << 32))
        total, done = made.plan.settings.training.epochs, made.epochs_done
        try:
            with progress(total, done, shows=self._ranks.is_first) as display:
                self.epochs_of(made, stop, display).run()
        except Interrupted as asked:
            return self.stopped(asked)
        except NotCompiledError:
            if not stop.requested:
                raise
            return self._cut_short(stop.reason)
        self.finish(made)
        return "completed"

    def make(self, fresh: bool, beside: Beside | None = None) -> Made:
        """All that trains, as an earlier attempt has left it or new.

        Args:
            fresh: begin again, whatever is there.
            beside: its place where it is led beside other runs; None: it trains by itself.
        """
        self._called = f"{self._layout.id}: " if beside else ""
        plan = self._begin()
        loaded = self._earlier(plan, fresh)
        device = choose_device(plan.settings.training.device)
        prepare_process(plan, device)
        memory = SideBySide(1)
        if beside is None and loaded and loaded.engine == TOGETHER and self._ranks.size == 1:
            beside = Beside(memory.place_of(0))  # what the others did is not missed
        allocate, runs, load = beside or Beside(own_memory)
        self._components = ComponentSaver(self._layout, plan, self._ranks, self._recorder, runs)
        rows = load(plan.settings.data, plan.data)
        before = starting_tensors(plan, self._layout, loaded, self._ranks)
        network = make_network(plan, rows["train"], before).to(device)
        updater = make_updater(plan, network, device, self._ranks, allocate)
        precision = plan.settings.training.precision
        losses = loss_settings(plan, loaded.epoch if loaded else 0)
        generator = torch.Generator().manual_seed(plan.seed) if beside else None
        step = Step(network, updater, losses, precision, device, generator)
        tables = make_tables(plan, network, rows, device)
        engine = TOGETHER if beside else engine_of(plan, device, self._ranks)
        origin = self._origin(plan, rows, step, engine)
        if loaded:
            self._refuse_other(loaded, origin)
        self._goes_on(loaded, fresh, {**environment(device), "data_sha256": dict(origin.data)})
        self._say_engine(plan, engine, step)
        settings = plan.settings.training.checkpoints
        self._saver = Saver(
            self._layout, settings, origin, step, self._ranks, self._recorder, loaded
        )
        if beside:
            one = Together({0: step}, memory).one
            return Made(plan, step, one, lambda table: one(AskLogits(table)), tables, loaded)
        rows_a_batch = full_batch(len(tables["train"]), plan.settings.training.batch_size)
        take = take_step(engine, step, rows_a_batch)
        take_logits = partial(split_logits, network, precision=precision)
        return Made(plan, step, take, take_logits, tables, loaded)

    def _begin(self) -> Plan:
        """Say that the run goes on, before anything can fail or take long."""
        before = read_status(self._layout)
        self._stood = how_it_stood(self._layout)
        self._recorder.tidy()
        self._recorder.status("running", before.epoch, before.step)
        plan = self._plan = read_plan(self._layout.plan)
        self._recorder.epochs = plan.settings.training.epochs
        self._recorder.steps = plan.steps.fusion_steps
        return plan

    def _earlier(self, plan: Plan, fresh: bool) -> Loaded | None:
        """What an earlier attempt has left to go on from; without it the records begin anew."""
        if fresh and self._ranks.is_first:
            remove_checkpoints(self._layout.checkpoints)
        loaded = newest_whole(self._layout, plan.hash, self._ranks, self._recorder, self._say)
        self._recorder.event(
            "started",
            attempt=self._recorder.attempt,
            pid=os.getpid(),
            host=socket.gethostname(),
            job_id=self._recorder.job_id,
            ranks=self._ranks.size,
            resumed_from=loaded.step if loaded else None,
            plan=plan.hash,
        )
        self._came_before = (loaded.epoch, loaded.step) if loaded else (0, 0)
        self._recorder.status("running", *self._came_before)
        return loaded

    def _goes_on(self, loaded: Loaded | None, fresh: bool, around: Mapping[str, Any]) -> None:
        """From here on the run is changed: its records begin where it goes on."""
        self._recorder.keep_metrics(loaded.epoch if loaded else 0)
        if not self._ranks.is_first:
            return
        write_json(self._layout.environment, around)
        if loaded:
            where = f"step {loaded.step}, in epoch {loaded.epoch + 1}"
            self._say(f"attempt {self._recorder.attempt} goes on at {where}")
        elif self._recorder.attempt > 1 and not fresh:
            why = "there is no whole checkpoint to go on from"
            self._say(f"attempt {self._recorder.attempt} begins again at step 0: {why}")

    def _say(self, words: str) -> None:
        """To whoever watches; with the run's name, where it is one of several."""
        with suppress(BrokenPipeError):  # nobody is left; that is no reason to stop
            print(f"{self._called}{words}", flush=True)

    def _say_engine(self, plan: Plan, engine: str, step: Step) -> None:
        why = why_engine(plan, engine, step.device, self._ranks)
        together = [list(stack.names) for stack in step.network.stacked]
        self._recorder.event("engine", engine=engine, why=why, experts_together=together)
        if not self._ranks.is_first:
            return
        if words := half_on_cpu(plan, step.device):
            self._say(words)
        if engine not in ("eager", TOGETHER):
            # (a kind is a place in a window, for one; who is frozen, for another)
            once = "the first step of each kind compiles, a minute or so; it is kept for later runs"
            self._say(f"engine {engine} ({why}): {once}")
        elif engine != TOGETHER and plan.values["training.engine"].source == "rule":
            self._say(f"engine {engine} ({why})")

    def _origin(self, plan: Plan, rows: Mapping[str, Rows], step: Step, engine: str) -> Origin:
        """What the run is made from and its bits depend on, by the first rank's word."""
        hashes: dict[str, str] = {}
        around = circumstances(step, engine)
        if self._ranks.is_first:
            hashes = content_hash(plan.data.files) or rows_hash(rows)
        return Origin(plan.hash, *self._ranks.from_first((hashes, around)))

    def _refuse_other(self, loaded: Loaded, origin: Origin) -> None:
        """Going on must end with the same bits, unless a person has said that it need not."""
        if not self._ranks.any(self._ranks.is_first and self._layout.inexact_allowed.exists()):
            loaded.refuse_other(origin)
        elif found := loaded.differences(origin):
            self._recorder.event("inexact", differences=found)
            if self._ranks.is_first:
                self._say("goes on, not to the same bits: " + "; ".join(found))

    def epochs_of(self, made: Made, stop: StopRequest, display: Display) -> Epochs:
        """The epochs that are left."""
        plan, step, tables = made.plan, made.step, made.tables
        epochs = self._epochs = Epochs(
            plan=plan,
            step=step,
            take_step=made.take_step,
            take_logits=made.take_logits,
            train=tables["train"],
            val=tables.get("val"),
            ranks=self._ranks,
            recorder=self._recorder,
            display=display,
            between_steps=Boundary(step, self._ranks, stop, self._recorder, self._checkpoints),
            save=self._own_components.save_best_sometimes,
            augment=augmenter_of(plan, tables["train"], step.network.experts_by_name),
        )
        if made.loaded:
            made.loaded.restore(step, epochs, self._ranks)
        return epochs

    def finish(self, made: Made) -> None:
        """On the first rank: the final weights, and what they are worth."""
        if not self._ranks.is_first:
            return
        plan, step, tables, epochs = made.plan, made.step, made.tables, self._done
        if epochs.ended_early:
            self._say(epochs.ended_early)
        last = Best(epochs.epoch - 1, epochs.steps, state=copied_state(step))
        for name, module in step.network.components().items():
            module.load_state_dict(epochs.best.state[name])
        splits = [part for part in ("test", "val", "train") if part in tables]
        results = {part: evaluated(plan, step, tables[part]) for part in splits}
        self._recorder.results(asked_metrics(plan, results))
        touched = TOUCHED_ONCE if "test" in tables else NEVER_TOUCHED
        self._own_components.save("best", epochs.best, touched)
        self._own_components.save("last", last, touched)
        if weights := step.weights.now():
            words = ", ".join(f"{path} {weight:.3g}" for path, weight in weights.items())
            self._say(f"loss weights after the last epoch: {words}")
        self._recorder.event("completed", epochs=epochs.epoch, best_epoch=epochs.best.epoch)
        self._recorder.outcome("completed", None, epochs.epoch, epochs.steps)
        self._recorder.status("completed", epochs.epoch, epochs.steps)
        self._checkpoints.close()
        settings = plan.settings.training.checkpoints
        tidy(self._layout.checkpoints, settings, epochs.best.step)

    def stopped(self, asked: Interrupted) -> Outcome:
        """Save everything that going on takes, then say so."""
        self._checkpoints.save_now(self._done)
        if asked.reason == INTERRUPT:
            raise KeyboardInterrupt from asked
        self.end("stopped", asked.reason)
        return "stopped"

    def _cut_short(self, reason: str) -> Outcome:
        """A signal to a whole job, or to a terminal's, ends the compiler too: that is no failure.

        It goes on from the newest checkpoint: within a batch there is nothing to save.
        """
        if reason == INTERRUPT:
            raise KeyboardInterrupt
        self.end("stopped", reason)
        return "stopped"

    @property
    def _done(self) -> Epochs:
        if self._epochs is None:
            raise RuntimeError("the epochs have not begun")
        return self._epochs

    @property
    def _own_components(self) -> ComponentSaver:
        if self._components is None:
            raise RuntimeError("there are no components yet")
        return self._components

    @property
    def _checkpoints(self) -> Saver:
        if self._saver is None:
            raise RuntimeError("there is nothing to save yet")
        return self._saver

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Whatever ends the block is recorded as the attempt's end, and goes on its way."""
        try:
            yield
        except KeyboardInterrupt:
            self.end("interrupted", INTERRUPT)
            raise
        except InexactError as error:
            self.refused(error)
            raise
        except OSError as error:
            what = f"{self._layout.root}: the run cannot go on: {in_words(error)}"
            known = TrainingError(what, way_out(error))
            known.__cause__ = error  # for the record, which is made before it is raised
            self.failed(known)
            raise known from error
        except Exception as error:
            inexact = no_exact_form(error)
            self.failed(inexact or error)
            if inexact:
                raise inexact from error
            raise

    def end(self, state: Literal["interrupted", "stopped"], reason: str) -> None:
        """Keep the best weights so far, and say how far it came."""
        self._recorder.event(state, reason=reason, step=self._came[1])
        self._end(state, "stopped", reason)

    def refused(self, error: InexactError) -> None:
        """The run stands where and how it stood, and this was no attempt at it."""
        self._recorder.attempt -= 1
        why = f"{NOT_GONE_ON}: {'; '.join(error.differences)}"
        with suppress(OSError):
            self._recorder.event("refused", differences=error.differences)
            self._recorder.status(self._stood, *self._came_before)
            self._recorder.outcome("refused", why, *self._came_before)

    def failed(self, error: Exception) -> None:
        """Keep the best weights so far, and say what went wrong."""
        record_error(self._layout, self._ranks, self._came[1], error)
        # A full disk, of all errors, must not be hidden by failing to record it.
        with suppress(OSError):
            what = error.what if isinstance(error, TrainingError) else str(error)
            self._recorder.event("failed", kind=type(error).__name__, error=what)
            self._end("failed", "failed", what)

    def _end(self, state: RunState, outcome: str, reason: str) -> None:
        if self._epochs is not None and self._epochs.best.state:
            self._own_components.save("best", self._epochs.best, NEVER_TOUCHED)
        self._recorder.status(state, *self._came)
        self._recorder.outcome(outcome, reason, *self._came)

    @property
    def _came(self) -> tuple[int, int]:
        """Epochs and steps done; before the first, those of the attempts before."""
        if self._epochs is not None:
            return self._epochs.epoch, self._epochs.steps
        before = read_status(self._layout)
        return before.epoch, before.step

    def close(self) -> None:
        """Let what is being written be written."""
        if self._saver is not None:
            self._saver.close()
        self._recorder.close()
