"""The peers: two loops written by hand, three libraries that drive one, and another model.

All train the network of `Task` in the same order of rows, with a clip for each of its groups. An
engine calls `meter` before every step, for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader, Sampler, TensorDataset

from benchmarks.task import Task

Meter = Callable[[], None]


class _Order(Sampler[int]):
    """The rows in fusionrun's order, a new one each epoch: where a textbook has shuffle=True."""

    def __init__(self, task: Task) -> None:
        self._orders, self._rows = task.orders(), len(task.labels)

    def __iter__(self) -> Iterator[int]:
        return iter(next(self._orders).tolist())

    def __len__(self) -> int:
        return self._rows


def _loader(task: Task) -> DataLoader[Any]:
    data = TensorDataset(*(x.cpu() for x in task.inputs), task.labels.cpu())
    pins = task.device.type == "cuda"
    return DataLoader(data, batch_size=task.batch_size, sampler=_Order(task), pin_memory=pins)


def plain(task: Task, meter: Meter) -> None:
    """A textbook's loop: a DataLoader, torch's defaults, `.item()` at every step."""
    loader, optimizer, clips = _loader(task), task.optimizer(), task.clips()
    while True:
        total = 0.0
        for batch in loader:
            meter()
            *inputs, labels = (x.to(task.device, non_blocking=True) for x in batch)
            optimizer.zero_grad()
            loss = task.loss(inputs, labels)
            loss.backward()
            for parameters, limit in clips:
                clip_grad_norm_(parameters, limit)
            optimizer.step()
            total += loss.item()


def by_hand(task: Task, meter: Meter) -> None:
    """The best loop we know to write: rows by index, fused optimizer, one clip, no `.item()`."""
    optimizer, clip = task.optimizer(fused=True), _one_clip(task)
    while True:
        for order in task.orders():
            for rows in order.split(task.batch_size):
                meter()
                inputs = [x.index_select(0, rows) for x in task.inputs]
                task.loss(inputs, task.labels.index_select(0, rows)).backward()
                clip()
                optimizer.step()
                optimizer.zero_grad()


def _one_clip(task: Task) -> Callable[[], None]:
    """All groups clipped in one pass over all gradients."""
    groups = task.clips()
    parameters = [p for own, _ in groups for p in own]
    numbers = [n for n, (own, _) in enumerate(groups) for _ in own]
    places = torch.tensor(numbers, device=task.device)
    limits = torch.tensor([limit for _, limit in groups], device=task.device)

    def clip() -> None:
        grads = [p.grad for p in parameters]
        squares = torch.stack(torch._foreach_norm(grads)).square()
        norms = torch.zeros_like(limits).index_add(0, places, squares).sqrt()
        factors = (limits / (norms + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(grads, list(factors.index_select(0, places).unbind()))

    return clip


class _Whole(nn.Module):
    """The network with its loss: what a library is given to wrap."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.network = task.network
        self._loss = task.loss

    def forward(self, inputs: list[Tensor], labels: Tensor) -> Tensor:
        return self._loss(inputs, labels)


def lightning_trainer(task: Task, meter: Meter) -> None:
    """Lightning's Trainer with everything off: `barebones=True`."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.whole = _Whole(task)

        def training_step(self, batch: list[Tensor], _: int) -> Tensor:
            meter()
            *inputs, labels = batch
            loss: Tensor = self.whole(inputs, labels)
            return loss

        def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
            for parameters, limit in task.clips():
                clip_grad_norm_(parameters, limit)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return task.optimizer()

    trainer = lightning.Trainer(accelerator="cpu", devices=1, max_epochs=-1, barebones=True)
    trainer.fit(Module(), _loader(task))


def lightning_fabric(task: Task, meter: Meter) -> None:
    """Lightning Fabric around the textbook's loop."""
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1)
    model, optimizer = fabric.setup(_Whole(task), task.optimizer())
    loader = fabric.setup_dataloaders(_loader(task), use_distributed_sampler=False)
    _driven(task, meter, model, optimizer, loader, fabric.backward, clip_grad_norm_)


def accelerate(task: Task, meter: Meter) -> None:
    """Accelerate around the textbook's loop."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model, optimizer, loader = accelerator.prepare(_Whole(task), task.optimizer(), _loader(task))
    clip = accelerator.clip_grad_norm_
    _driven(task, meter, model, optimizer, loader, accelerator.backward, clip)


def _driven(
    task: Task,
    meter: Meter,
    model: Any,
    optimizer: Any,
    loader: Any,
    backward: Callable[[Tensor], Any],
    clip: Callable[..., Any],
) -> None:
    clips = task.clips()
    while True:
        for *inputs, labels in loader:
            meter()
            optimizer.zero_grad()
            backward(model(inputs, labels))
            for parameters, limit in clips:
                clip(parameters, limit)
            optimizer.step()


def scikit_learn(task: Task, meter: Meter) -> None:
    """MLPClassifier as wide as the one expert: another model, without fusion, norm and heads."""
    from sklearn.neural_network import MLPClassifier

    (expert,) = task.plan.settings.experts.values()
    x, y = task.inputs[0].flatten(1).numpy(), task.labels.numpy()
    hidden = (*expert.hidden, expert.features)
    model = MLPClassifier(hidden, batch_size=task.batch_size, random_state=task.plan.seed)
    while True:
        model.partial_fit(x, y, classes=np.unique(y))  # an epoch
        for _ in range(-(-len(y) // task.batch_size)):
            meter()


PEERS: dict[str, Callable[[Task, Meter], None]] = {
    "plain loop": plain,
    "best loop by hand": by_hand,
    "Lightning Trainer": lightning_trainer,
    "Lightning Fabric": lightning_fabric,
    "Accelerate": accelerate,
    "scikit-learn": scikit_learn,
}
