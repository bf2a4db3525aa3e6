"""Steps per second of fusionrun against a plain hand-written loop of the same model.

    python benchmarks/steps.py                  # both batch sizes, seven rounds
    python benchmarks/steps.py --rounds 15 --threads 1

The peer is what a textbook says: a DataLoader over a TensorDataset, `torch.optim` with its
defaults and one parameter group a component, cross-entropies head by head, a
`clip_grad_norm_` for each group, `.item()` of the loss at each step. Both train the very same
network (six MLP experts on the digits, concatenation, AdamW) from the same first weights.

Each measurement is a process of its own, the two kinds in turn (A B, B A, …). Printed: the median
over rounds of steps per second, and the median of the pairwise ratios with its range.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

RECIPE = Path(__file__).parent.parent / "recipes" / "handwritten-digits.yaml"
WARM_STEPS = 60
STEPS = 600


def plan_of(batch_size: int):
    from fusionrun.plan.resolve import make_plan
    from fusionrun.recipe.read import read_recipe

    setting = f"training.batch_size={batch_size}"
    return make_plan(read_recipe(RECIPE, [setting]), Path("runs"))


def measure_fusionrun(batch_size: int, threads: int) -> dict[str, float]:
    """The trainer's own step over its own batches, logs kept as in a run."""
    import torch

    from fusionrun.data.load import load_data
    from fusionrun.train.assemble import loss_settings, make_network, make_updater, pin_numerics
    from fusionrun.train.step import Step
    from fusionrun.train.tables import Table, epoch_order, spans

    plan, device = plan_of(batch_size), torch.device("cpu")
    pin_numerics(plan, device)
    torch.set_num_threads(threads)
    rows = load_data(plan.settings.data, plan.data)
    network = make_network(plan, rows["train"]).to(device)
    views = {name: expert.view for name, expert in plan.settings.experts.items()}
    table = Table(rows["train"], network.experts_by_name, views, device)
    updater = make_updater(plan, network.components(), device)
    updater.set_rates({name: component.lr for name, component in plan.components.items()})
    step = Step(network, updater, loss_settings(plan), "float32", device)

    def epoch(number: int, limit: int) -> int:
        order = epoch_order(len(table), 0, number, device)
        logs = []
        for start, stop in spans(len(table), batch_size)[:limit]:
            logs.append(step(table.batch(order[start:stop]), stop == len(order)))
        torch.stack([log.terms for log in logs]).mean(0).tolist()
        updater.summarize(log.record for log in logs)
        return len(logs)

    return timed(epoch)


def measure_plain(batch_size: int, threads: int) -> dict[str, float]:
    """The textbook loop."""
    import torch
    import torch.nn.functional as F
    from torch.utils.data import DataLoader, TensorDataset

    from fusionrun.data.load import load_data
    from fusionrun.train.assemble import make_network

    plan = plan_of(batch_size)
    torch.set_num_threads(threads)
    torch.manual_seed(plan.seed)
    rows = load_data(plan.settings.data, plan.data)["train"]
    network = make_network(plan, rows)
    experts = network.experts_by_name
    scaled = [
        expert.scale(torch.from_numpy(rows.views[plan.settings.experts[name].view]))
        for name, expert in experts.items()
    ]
    data = TensorDataset(*scaled, torch.from_numpy(rows.labels))
    loader = DataLoader(data, batch_size=batch_size, shuffle=True)
    components = network.components()
    groups = [
        {"params": list(module.parameters()), "lr": plan.components[name].lr}
        for name, module in components.items()
    ]
    decay = plan.settings.training.optimizer.weight_decay
    optimizer = torch.optim.AdamW(groups, weight_decay=decay)
    clips = [
        [*components[f"experts.{name}"].parameters(), *components[f"heads.{name}"].parameters()]
        for name in experts
    ]
    clips.append([*components["fusion"].parameters(), *components["global_head"].parameters()])

    def epoch(number: int, limit: int) -> int:
        total, steps = 0.0, 0
        for *inputs, labels in loader:
            if steps == limit:
                break
            optimizer.zero_grad()
            features = [e.encode(x) for e, x in zip(experts.values(), inputs, strict=True)]
            logits = [head(f) for head, f in zip(network.heads, features, strict=True)]
            loss = F.cross_entropy(network.global_head(network.fusion(features)), labels)
            for own in logits:
                loss = loss + F.cross_entropy(own, labels)
            loss.backward()
            for group in clips:
                torch.nn.utils.clip_grad_norm_(group, 1.0)
            optimizer.step()
            total += loss.item()
            steps += 1
        return steps

    return timed(epoch)


def timed(epoch) -> dict[str, float]:
    """Steps per second after a warm-up, by the wall clock and by CPU time."""
    number, steps = 0, 0
    while steps < WARM_STEPS:
        steps += epoch(number, WARM_STEPS - steps)
        number += 1
    wall, cpu, steps = time.perf_counter(), time.process_time(), 0
    while steps < STEPS:
        steps += epoch(number, STEPS - steps)
        number += 1
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"steps_per_s": steps / wall, "steps_per_cpu_s": steps / cpu}


KINDS = {"fusionrun": measure_fusionrun, "plain": measure_plain}


def in_process(kind: str, batch_size: int, threads: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", kind, str(batch_size), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def compare(batch_size: int, threads: int, rounds: int) -> None:
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for number in range(rounds):
        order = list(KINDS) if number % 2 == 0 else list(reversed(KINDS))
        for kind in order:
            found[kind].append(in_process(kind, batch_size, threads))
    for clock in ("steps_per_s", "steps_per_cpu_s"):
        ours, plain = ([run[clock] for run in found[kind]] for kind in KINDS)
        ratios = sorted(a / b for a, b in zip(ours, plain, strict=True))
        print(
            f"batch {batch_size:4}  {clock:15}  fusionrun {statistics.median(ours):7.0f}  "
            f"plain {statistics.median(plain):7.0f}  ratio {statistics.median(ratios):.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f})",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--measure", nargs=3, metavar=("KIND", "BATCH", "THREADS"))
    arguments = parser.parse_args()
    if arguments.measure:
        kind, batch_size, threads = arguments.measure
        print(json.dumps(KINDS[kind](int(batch_size), int(threads))))
        return
    print(f"{arguments.rounds} rounds, {arguments.threads} threads, {STEPS} steps a measurement")
    for batch_size in arguments.batch_sizes:
        compare(batch_size, arguments.threads, arguments.rounds)


if __name__ == "__main__":
    main()
