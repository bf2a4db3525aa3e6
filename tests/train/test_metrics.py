"""Metrics against scikit-learn, and the calibration error against a plain loop in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss
from torch import Tensor

from fusionrun.train.metrics import metrics, path_metrics

NAMES = ("left", "right", "third")


def drawn(rows: int = 400, classes: int = 7, experts: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (rows,), generator=generator)
    logits = torch.randn(experts + 1, rows, classes, generator=generator, dtype=torch.float64)
    logits += 1.5 * torch.nn.functional.one_hot(labels, classes)
    return logits[1:], logits[0], labels


def plain_calibration_error(probs: np.ndarray, labels: np.ndarray) -> float:
    confidence, right = probs.max(1), probs.argmax(1) == labels
    error = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


@pytest.mark.parametrize("path", ["global", *NAMES, "mean_of_experts"])
def test_every_path_agrees_with_scikit_learn(path: str) -> None:
    experts, overall, labels = drawn()
    softened = experts.softmax(-1)
    probs = {"global": overall.softmax(-1), "mean_of_experts": softened.mean(0)}
    probs |= dict(zip(NAMES, softened, strict=True))
    own = probs[path].numpy()

    got = path_metrics(experts, overall, labels, NAMES, heads_trained=True)[path]

    chosen, truth = own.argmax(1), labels.numpy()
    assert got["accuracy"] == pytest.approx(accuracy_score(truth, chosen), abs=1e-12)
    assert got["macro_f1"] == pytest.approx(f1_score(truth, chosen, average="macro"), abs=1e-12)
    assert got["nll"] == pytest.approx(log_loss(truth, own), abs=1e-12)
    assert got["ece"] == pytest.approx(plain_calibration_error(own, truth), abs=1e-12)


def test_a_class_absent_from_the_split_counts_as_zero_in_macro_f1() -> None:
    _, logits, labels = drawn(rows=40, classes=4)
    kept = labels < 2
    logits, labels = logits[kept], labels[kept]
    logits[:, 3] = -50.0
    expected = f1_score(labels, logits.argmax(1), labels=range(4), average="macro", zero_division=0)

    assert metrics(logits.log_softmax(-1), labels)["macro_f1"] == pytest.approx(expected, abs=1e-12)


def test_perfect_certainty_has_no_error_of_any_kind() -> None:
    labels = torch.tensor([0, 1, 2])
    log_probs = (1000.0 * torch.eye(3, dtype=torch.float64)).log_softmax(-1)

    got = metrics(log_probs, labels)

    assert got == {"accuracy": 1.0, "macro_f1": 1.0, "nll": 0.0, "ece": 0.0}


def test_float32_logits_are_judged_in_float64() -> None:
    experts, overall, labels = (drawn()[0].float(), drawn()[1].float(), drawn()[2])

    got = path_metrics(experts, overall, labels, NAMES, heads_trained=True)

    assert got == path_metrics(experts.double(), overall.double(), labels, NAMES, True)


def test_paths_come_in_the_order_of_the_table() -> None:
    got = path_metrics(*drawn(), NAMES, heads_trained=True)

    assert list(got) == ["global", *NAMES, "mean_of_experts"]


def test_untrained_heads_are_not_judged() -> None:
    assert list(path_metrics(*drawn(), NAMES, heads_trained=False)) == ["global"]


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        path_metrics(*drawn(rows=0), NAMES, heads_trained=True)


def test_an_expert_named_like_a_path_is_refused() -> None:
    with pytest.raises(ValueError, match="names must differ"):
        path_metrics(*drawn(), ("left", "global", "third"), heads_trained=True)
