"""`fusionrun train` as a person meets it: screens, exit codes, signals, terminals."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from fusionrun.cli.main import make_app
from fusionrun.report import how_far
from fusionrun.store.components import verify
from fusionrun.store.layout import RunLayout
from fusionrun.store.manifest import read_manifest
from fusionrun.store.runs import list_runs
from fusionrun.store.status import read_status, write_status
from tests.small_runs import TWO_EXPERTS
from tests.watch.made import Made

pytestmark = pytest.mark.usefixtures("numerics")

RECIPE = TWO_EXPERTS + "training: {epochs: 2, device: cpu, engine: eager}\n"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(RECIPE)
    return path


def train(recipe: Path, runs: Path, *arguments: str) -> Result:
    return CliRunner().invoke(make_app(), ["train", str(recipe), "--runs", str(runs), *arguments])


def snapshot(layout: RunLayout) -> dict[str, tuple[int, bytes]]:
    files = (path for path in layout.root.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


# --- the screen -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def done(recipe: Path, runs: Path) -> Result:
    return train(recipe, runs)


def test_a_run_that_ends_well_exits_with_zero(done: Result) -> None:
    assert done.exit_code == 0, done.output


def test_the_screen_ends_with_table_gain_and_components(done: Result, runs: Path) -> None:
    (layout,) = list_runs(runs)
    end = done.stdout[done.stdout.index("test split") :]
    assert re.search(r"\bglobal +│ +\d+\.\d\d% │ +\d+\.\d\d% │ \d+\.\d{4} │ +\d+\.\d\d%", end)
    for name in ("fourier", "zernike", "mean_of_experts"):
        assert f"│ {name}" in end
    assert re.search(r"^best expert  (fourier|zernike), \d+\.\d\d%$", end, re.M)
    assert re.search(r"^fusion gain  [+-]\d+\.\d\d points (over|against|to) ", end, re.M)
    assert f"{layout.all_components}\n" in end
    assert "6 files each of best and last, verified" in end


def test_the_command_that_the_screen_ends_with_works(
    done: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = done.stdout.splitlines()[-1]
    monkeypatch.chdir(tmp_path)
    arguments = line.removeprefix("next         fusionrun ").split()
    assert CliRunner().invoke(make_app(), arguments).exit_code == 0
    assert (tmp_path / "fusion.safetensors").is_file()


def test_json_is_all_that_standard_output_carries(done: Result, recipe: Path, runs: Path) -> None:
    shown = json.loads(train(recipe, runs, "--json").stdout)
    layout = RunLayout(Path(shown["directory"]))
    assert shown["run"] == layout.id
    assert shown["results"] == json.loads(layout.results.read_text())
    assert set(shown["components"]) == {"best", "last"}


def test_progress_is_plain_lines_where_there_is_no_terminal(done: Result) -> None:
    lines = [line for line in done.stdout.splitlines() if line.startswith("epoch ")]
    assert [line[:9] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert "\x1b" not in done.stdout


def test_untrained_heads_are_not_compared(recipe: Path, tmp_path: Path) -> None:
    result = train(recipe, tmp_path, "--set", "knowledge_transfer.lambda_loss=0.0")
    assert result.exit_code == 0, result.output
    assert "heads        not trained (lambda_loss 0)" in result.stdout
    end = result.stdout[result.stdout.index("test split") :]
    assert "fourier" not in end
    assert "mean_of_experts" not in end


def test_a_table_without_accuracy_has_no_verdict(recipe: Path, tmp_path: Path) -> None:
    result = train(recipe, tmp_path, "--set", "evaluation.metrics=[nll]")
    assert result.exit_code == 0, result.output
    assert "fusion gain" not in result.stdout
    assert "NLL" in result.stdout


def test_a_run_that_fusing_made_worse_says_so(recipe: Path, tmp_path: Path) -> None:
    # A fusion that does not learn, beside experts that do.
    result = train(recipe, tmp_path, "--set", "learning_rates.head_lr=1e-12")
    assert result.exit_code == 0, result.output
    assert re.search(
        r"^fusion gain  -\d+\.\d\d points against \S+: fusing did NOT", result.stdout, re.M
    )


# --- once more ------------------------------------------------------------------------------


def test_a_finished_run_is_shown_and_not_trained_again(
    done: Result, recipe: Path, runs: Path
) -> None:
    (layout,) = list_runs(runs)
    before = snapshot(layout)
    again = train(recipe, runs)
    assert again.exit_code == 0, again.output
    assert "has finished already" in again.stdout
    assert "epoch 1/2" not in again.stdout
    assert again.stdout.split("test split")[1] == done.stdout.split("test split")[1]
    assert snapshot(layout) == before
    assert list_runs(runs) == [layout]


def test_new_trains_a_finished_run_again_beside_it(recipe: Path, tmp_path: Path) -> None:
    first = train(recipe, tmp_path)
    second = train(recipe, tmp_path, "--new")
    assert (first.exit_code, second.exit_code) == (0, 0)
    newest, oldest = list_runs(tmp_path)
    assert newest.id == f"{oldest.id}-2"
    assert read_status(newest).state == "completed"
    assert "stays as it is (completed)" in second.stdout


def interrupted_copy(runs: Path, target: Path) -> RunLayout:
    """A run directory as one that was stopped leaves it."""
    (layout,) = list_runs(runs)
    copy = RunLayout(target / layout.id)
    copy.root.mkdir(parents=True)
    for name in ("plan.json", "recipe.yaml"):
        (copy.root / name).write_bytes((layout.root / name).read_bytes())
    write_status(copy, "interrupted", epoch=1, step=10, attempts=1)
    return copy


def test_an_unfinished_run_stays_untouched_and_a_new_one_is_made(
    done: Result, recipe: Path, runs: Path, tmp_path: Path
) -> None:
    old = interrupted_copy(runs, tmp_path)
    before = snapshot(old)
    result = train(recipe, tmp_path)
    assert result.exit_code == 0, result.output
    assert f"{old.root} stays as it is (interrupted)" in result.stdout
    assert snapshot(old) == before
    assert read_status(RunLayout(tmp_path / f"{old.id}-2")).state == "completed"


def test_a_second_try_that_finished_is_found_although_the_first_did_not(
    done: Result, recipe: Path, runs: Path, tmp_path: Path
) -> None:
    old = interrupted_copy(runs, tmp_path)
    assert train(recipe, tmp_path).exit_code == 0
    third = train(recipe, tmp_path)
    assert f"{old.root}-2 has finished already" in third.stdout
    assert len(list_runs(tmp_path)) == 2


def test_a_run_that_is_going_on_is_not_started_twice(
    done: Result, recipe: Path, runs: Path, tmp_path: Path
) -> None:
    old = interrupted_copy(runs, tmp_path)
    write_status(old, "running", epoch=1, step=10, attempts=1)
    result = train(recipe, tmp_path)
    assert result.exit_code == 2
    assert "this run is going on right now" in result.stderr
    assert list_runs(tmp_path) == [old]


def test_other_data_under_the_same_recipe_is_trained_again(recipe: Path, tmp_path: Path) -> None:
    import numpy as np

    from fusionrun.datasets import path_of

    with np.load(path_of("handwritten_digits")) as archive:
        arrays = {name: archive[name] for name in ("fourier", "zernike", "label")}
    mine = tmp_path / "mine.yaml"
    mine.write_text(RECIPE.replace("package:handwritten_digits", "rows.npz"))
    np.savez(tmp_path / "rows.npz", **arrays)
    assert train(mine, tmp_path / "runs").exit_code == 0
    np.savez(tmp_path / "rows.npz", **{**arrays, "fourier": arrays["fourier"][::-1]})
    again = train(mine, tmp_path / "runs")
    assert "stays as it is (completed)" in again.stdout
    assert len(list_runs(tmp_path / "runs")) == 2


# --- refusals -------------------------------------------------------------------------------

LATER = {
    "tracking": ("tracking: {tensorboard: true}\n", "tracking.tensorboard"),
}


@pytest.mark.parametrize("name", LATER)
def test_what_training_cannot_do_yet_is_refused_with_its_place(name: str, tmp_path: Path) -> None:
    text, key = LATER[name]
    path = tmp_path / "later.yaml"
    path.write_text(RECIPE + text)
    result = train(path, tmp_path / "runs")
    assert result.exit_code == 2
    assert re.search(rf"^  {re.escape(key)} .*later\.yaml:10", result.stderr, re.M), result.stderr
    assert not (tmp_path / "runs").exists()


def test_a_setting_that_training_cannot_do_yet_is_refused(recipe: Path, tmp_path: Path) -> None:
    result = train(recipe, tmp_path / "runs", "--set", "evaluation.missing_views=each")
    assert result.exit_code == 2
    assert re.search(r"^  evaluation\.missing_views .*--set", result.stderr, re.M), result.stderr
    assert not (tmp_path / "runs").exists()


def test_runs_that_cannot_be_written_are_an_error_that_names_the_option(
    recipe: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    result = train(recipe, tmp_path / "file" / "runs")
    assert result.exit_code == 2
    assert "no run can be made there" in result.stderr
    assert "--runs DIR" in result.stderr


def test_data_that_training_refuses_leaves_no_run_behind(recipe: Path, tmp_path: Path) -> None:
    bad = np.zeros((40, 3), np.float32)
    bad[7, 1] = np.nan
    np.savez(tmp_path / "bad.npz", a=bad, label=np.arange(40) % 2)
    text = "version: 1\nname: bad\ndata: {source: npz, path: bad.npz}\n"
    text += "experts: {a: {model: mlp, view: a}}\nfusion: {type: concatenation}\n"
    (tmp_path / "bad.yaml").write_text(text)
    result = train(tmp_path / "bad.yaml", tmp_path / "runs")
    assert result.exit_code == 2
    assert "nan" in result.stderr.lower()
    assert list((tmp_path / "runs").iterdir()) == []


def test_damaged_results_are_said_to_be_so(recipe: Path, tmp_path: Path) -> None:
    assert train(recipe, tmp_path).exit_code == 0
    (layout,) = list_runs(tmp_path)
    layout.results.write_text("{}")
    result = train(recipe, tmp_path)
    assert result.exit_code == 1
    assert f"{layout.results}: damaged" in result.stderr


def test_early_stopping_is_said(recipe: Path, tmp_path: Path) -> None:
    rates = ("--set", "learning_rates={base_lr: 1e-30, head_lr: 1e-30}")
    patience = ("--set", "training.early_stopping={patience: 2, min_delta: 0.01}")
    result = train(recipe, tmp_path, *rates, *patience, "--set", "training.epochs=9")
    words = "stopped early after epoch 3: no gain over 0.01 in global accuracy for 2 epochs"
    assert words in result.stdout


def test_a_foreground_run_that_is_asked_to_stop_says_so(recipe: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(recipe, tmp_path, epochs=100_000), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    layout = _with_metrics(tmp_path, set())
    layout.stop_request.write_text('{"reason": "cancel"}')
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"asked to stop, and has saved where it is" in errors


def test_an_interrupt_while_torch_is_imported_ends_with_one_word(
    recipe: Path, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        command(recipe, tmp_path, epochs=100_000),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.rstrip().endswith(b" torch._C") or b"torch.torch_version" in line:
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert list_runs(tmp_path) == []  # what was never begun is in nobody's way


def test_a_failing_run_exits_with_one_and_a_message(recipe: Path, tmp_path: Path) -> None:
    settings = ("learning_rates.base_lr=1e38", "training.optimizer.type=SGD")
    result = train(recipe, tmp_path, *(x for s in settings for x in ("--set", s)))
    (layout,) = list_runs(tmp_path)
    assert result.exit_code == 1
    assert "not finite" in result.stderr
    assert "Fix: try a lower learning rate" in result.stderr
    assert "`fusionrun resume" not in result.stderr  # it would come to the same end
    assert "Traceback" not in result.output
    assert read_status(layout).state == "failed"
    assert json.loads(layout.events.read_text().splitlines()[-1])["event"] == "failed"


# --- processes ------------------------------------------------------------------------------


def command(recipe: Path, runs: Path, epochs: int) -> list[str]:
    arguments = ["train", str(recipe), "--runs", str(runs), "--set", f"training.epochs={epochs}"]
    return [sys.executable, "-m", "fusionrun", *arguments]


def stopped_by(number: signal.Signals, recipe: Path, runs: Path) -> tuple[int, str, RunLayout]:
    before = {run.id for run in list_runs(runs)}
    process = subprocess.Popen(
        command(recipe, runs, 3000),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        layout = _with_metrics(runs, before)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, errors, layout


def _with_metrics(runs: Path, before: set[str]) -> RunLayout:
    for _ in range(600):
        for run in list_runs(runs):
            if run.id not in before and run.metrics.exists():
                return run
        time.sleep(0.1)
    raise TimeoutError("no epoch was done within a minute")


def test_whoever_is_interrupted_thrice_is_told_of_every_epoch(tmp_path: Path) -> None:
    made = Made(tmp_path / "run").status("running", epoch=0, step=0)
    made.layout.metrics.write_text('{"epoch": 0, "step": 10}\n{"epoch": 1, "step": 20}\n')
    assert "ended after 2 whole epochs, no weights were saved" in how_far(made.layout)


@pytest.mark.slow
def test_a_signal_stops_the_run_with_its_best_weights_saved(recipe: Path, tmp_path: Path) -> None:
    layouts = []
    # The second run is of the same recipe: what was interrupted stands in nobody's way.
    for number in (signal.SIGINT, signal.SIGTERM):
        code, errors, layout = stopped_by(number, recipe, tmp_path)
        layouts.append(layout)
        assert code == 130, errors
        assert "stopping after this step" in errors
        manifest = read_manifest(layout.components("best"))
        assert f"best weights so far (epoch {manifest.epoch + 1})" in errors
        assert errors.endswith("interrupted\n")
        assert f"`fusionrun resume {layout.id} --runs {tmp_path}` goes on from step " in errors
        assert "Traceback" not in errors
        assert read_status(layout).state == "interrupted"
        verify(layout.components("best"))
        assert "not touched" in manifest.test_split
    assert layouts[1].id == f"{layouts[0].id}-2"


def screen_of(output: str) -> list[str]:
    """What a terminal shows after it was sent `output`: the few control codes that rich uses."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[\??[\d;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", output):
        if token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif token == "\r":
            column = 0
        elif token.endswith("A") and token.startswith("\x1b"):
            row -= int(token[2:-1] or 1)
        elif token == "\x1b[2K":
            lines[row] = ""
        elif not token.startswith("\x1b"):
            lines[row] = (
                lines[row][:column].ljust(column) + token + lines[row][column + len(token) :]
            )
            column += len(token)
    return lines


@pytest.mark.slow
def test_a_terminal_of_eighty_columns_ends_with_a_sane_screen(recipe: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "LINES", "NO_COLOR"}}
    process = subprocess.Popen(
        command(recipe, tmp_path, 40),
        stdout=theirs,
        stderr=theirs,
        env={**env, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    output = b"".join(iter(lambda: _read(ours), b"")).decode()
    os.close(ours)
    assert process.wait(timeout=60) == 0, output
    assert output.rfind("\x1b[?25h") > output.rfind("\x1b[?25l") >= 0  # the cursor is back
    screen = screen_of(output)
    after = screen[next(i for i, line in enumerate(screen) if line.startswith("run directory")) :]
    assert [line for line in after if line.startswith("epoch")] == [after[1]]
    assert after[1].startswith("epoch 40/40 ━")
    assert after[2].startswith("loss ")
    assert all(len(line.rstrip()) <= 80 or str(tmp_path) in line for line in after)
    assert any("fusion gain" in line for line in after)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # what Linux says when the other end is closed
        return b""


def test_a_reader_that_leaves_early_is_no_error(recipe: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "fusionrun", "plan", str(recipe), "--full"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), errors) == (0, b"")


@pytest.mark.parametrize("last", ["", "memory"], ids=["at once", "after the plan"])
def test_a_run_goes_on_though_its_reader_leaves_early(
    last: str, recipe: Path, tmp_path: Path
) -> None:
    # (of an engine that `auto` chose there is a line, once nobody reads it)
    words = [*command(recipe, tmp_path / "runs", 1), "--set", "training.engine=auto"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    while last and not process.stdout.readline().startswith(last):
        pass
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), errors) == (0, "")
    (root,) = (tmp_path / "runs").iterdir()
    assert read_status(RunLayout(root)).state == "completed"
