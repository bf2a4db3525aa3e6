"""`fusionrun plan` as a person and a program meet it; and the commands and options, pinned."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from fusionrun.cli.main import list_of_commands, make_app
from fusionrun.plan.resolve import make_plan
from fusionrun.plan.stored import sealed
from fusionrun.recipe.read import read_recipe
from fusionrun.store.layout import RunLayout
from fusionrun.store.status import write_status
from tests.program import fusionrun

RECIPE = """\
version: 1
name: small
data: {source: npz, path: package:handwritten_digits}
experts:
  fourier: {model: mlp, view: fourier}
  zernike: {model: mlp, view: zernike}
fusion: {type: multiplicative}
training: {epochs: 4}
"""
# Every command with its arguments and options: what scripts rely on. Adding is free; taking
# away or renaming breaks people.
SURFACE = {
    "": {"--version", "--debug", "--help", "-h"},
    "plan": {
        "RECIPE",
        "--set",
        "--full",
        "--json",
        "--yaml",
        "--why",
        "--against",
        "--site",
        "--runs",
        "--help",
        "-h",
    },
    "train": {"RECIPE", "--set", "--runs", "--new", "--json", "--help", "-h"},
    "export": {
        "--component",
        "--run",
        "--which",
        "--format",
        "--output",
        "-o",
        "--force",
        "--json",
        "--runs",
        "--help",
        "-h",
    },
    "convert": {
        "FILE",
        "--output",
        "-o",
        "--key",
        "--strip",
        "--map",
        "--force",
        "--json",
        "--help",
        "-h",
    },
    "lr-find": {
        "RECIPE",
        "--set",
        "--low",
        "--high",
        "--steps",
        "--output",
        "-o",
        "--runs",
        "--json",
        "--help",
        "-h",
    },
    "preview": {"RECIPE", "--output", "-o", "--set", "--runs", "--help", "-h"},
    "profile": {
        "RECIPE",
        "--steps",
        "--output",
        "-o",
        "--set",
        "--runs",
        "--json",
        "--help",
        "-h",
    },
    "init": {"FILE", "--data", "--label", "--force", "--help", "-h"},
    "submit": {
        "RECIPE",
        "--set",
        "--site",
        "--runs",
        "--executor",
        "--after",
        "--after-any",
        "--dry-run",
        "--template",
        "--new",
        "--json",
        "--help",
        "-h",
    },
    "status": {"RUN", "--watch", "--json", "--runs", "--help", "-h"},
    "logs": {"RUN", "--follow", "-f", "--lines", "-n", "--runs", "--help", "-h"},
    "runs": {"--json", "--runs", "--help", "-h"},
    "cancel": {"RUN", "--runs", "--now", "--json", "--help", "-h"},
    "resume": {"RUN", "--runs", "--executor", "--allow-inexact", "--json", "--help", "-h"},
    "doctor": {"--runs", "--json", "--help", "-h"},
    "schema": {"--output", "-o", "--help", "-h"},
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FUSIONRUN_RUNS", raising=False)
    Path("small.yaml").write_text(RECIPE)
    return tmp_path


def shown(*arguments: str) -> str:
    result = fusionrun(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: str, code: int = 2) -> str:
    result = fusionrun(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    return result.stderr


def with_slurm(section: str, more: str = "") -> None:
    Path("small.yaml").write_text(f"{RECIPE}slurm: {section}\n{more}\n")


def data(*arguments: str) -> Any:
    return json.loads(shown(*arguments, "--json"))


# ------------------------------------------------------------------ the surface


def names(command: Any, parent: typer.Context | None = None) -> set[str]:
    context = typer.Context(command, parent=parent, **command.context_settings)
    found: set[str] = set()
    for parameter in command.get_params(context):
        is_argument = parameter.param_type_name == "argument"
        found |= {parameter.metavar} if is_argument else {*parameter.opts}
    return found


def test_commands_arguments_and_options_are_as_agreed() -> None:
    root = typer.main.get_command(make_app())
    context = typer.Context(root, **root.context_settings)
    found = {"": names(root), **{name: names(c, context) for name, c in root.commands.items()}}
    assert found == SURFACE


def test_the_list_of_commands_is_that_of_the_commands() -> None:
    listed, whole = (typer.main.get_command(app) for app in (list_of_commands(), make_app()))
    assert list(listed.commands) == list(whole.commands)
    assert CliRunner().invoke(list_of_commands(), ["--help"]).stdout == shown("--help")


@pytest.mark.parametrize("command", [name for name in SURFACE if name])
def test_help_shows_every_option(command: str) -> None:
    text = shown(command, "--help")
    assert [name for name in SURFACE[command] if name not in text] == []


@pytest.mark.parametrize(
    "arguments", [("plan",), ("nonsense",), ("plan", "small.yaml", "--wy", "x")]
)
def test_a_wrong_command_line_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert fusionrun(*arguments).exit_code == 2


def test_a_full_disk_behind_the_output_is_one_line() -> None:
    command = [sys.executable, "-m", "fusionrun", "plan", "small.yaml"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "cannot go on: No space left on device\n"


# ------------------------------------------------------------------ views


def test_plan_shows_the_concise_screen() -> None:
    text = shown("plan", "small.yaml")
    assert text.startswith("small  ·  preset origin  ·  seed 0  ·  run small-")
    assert "experts.fourier" in text
    assert "training.optimizer.momentum" not in text


def test_full_adds_every_value() -> None:
    concise = shown("plan", "small.yaml")
    full = shown("plan", "small.yaml", "--full")
    assert full.startswith(concise)
    assert "training.optimizer.momentum" in full.removeprefix(concise)


def test_a_slurm_section_ends_the_screen_with_its_script() -> None:
    with_slurm("{time: '04:00:00'}")
    *above, script = shown("plan", "small.yaml", "--full").partition("#!/bin/bash\n")
    assert "training.optimizer.momentum" in above[0]
    assert "script  of the job; CODE stands for the copy of the code" in above[0]
    assert "#SBATCH --time=04:00:00\n" in script
    assert data("plan", "small.yaml")["script"] == f"#!/bin/bash\n{script}"
    assert data("plan", "small.yaml") == data("plan", "small.yaml", "--full")


def test_without_a_slurm_section_there_is_no_script() -> None:
    assert "#!/bin/bash" not in shown("plan", "small.yaml")
    assert data("plan", "small.yaml")["script"] is None


def test_the_script_of_a_sweep_is_said_to_be_of_one_run() -> None:
    with_slurm("{nodes: 1}", "sweep: {seeds: [0, 1]}")
    assert "script  of this one run, not of the sweep's array;" in shown("plan", "small.yaml")


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_what_slurm_would_misread_is_refused_as_submit_does(form: tuple[str, ...]) -> None:
    with_slurm("{time: '00:02:00', extra: {partitoin: x}}")
    said = refused("plan", "small.yaml", *form)
    told = json.loads(said)["message"] if form else said
    assert "slurm.grace\n  got       120 seconds, of a time limit of 120" in told
    assert "small.yaml:9:46  slurm.extra.partitoin\n" in told


def test_what_a_run_of_the_plan_has_measured_is_held_against_the_limit() -> None:
    with_slurm("{time: '00:05:00', max_requeues: 0}")
    layout = RunLayout(Path("runs", f"small-{data('plan', 'small.yaml')['hash'][:8]}-s3"))
    layout.root.mkdir(parents=True)
    layout.plan.touch()
    write_status(layout, "stopped", epoch=1, step=9, attempts=1, step_s=60.0, save_s=1.0)
    text = " ".join(shown("plan", "small.yaml").split())
    assert "forecast needs 13.3 slices of 5 min" in text
    assert "warning slurm.max_requeues allows 1 slice; the run will stop before its end" in text
    assert data("plan", "small.yaml")["forecast"]["slices"] == pytest.approx(40 * 60 / 180)


def test_json_is_the_plan() -> None:
    content = data("plan", "small.yaml")
    assert content["components"]["experts.fourier"]["lr"] == 1.3e-4
    assert content["values"]["fusion.dim"]["source"] == "rule"
    assert {w["code"] for w in content["warnings"]} >= {"sgd_from_scratch"}


def test_full_changes_nothing_about_the_json() -> None:
    assert data("plan", "small.yaml", "--full") == data("plan", "small.yaml")


def test_yaml_is_a_recipe_that_plans_alike() -> None:
    Path("resolved.yaml").write_text(shown("plan", "small.yaml", "--yaml"))
    assert data("plan", "resolved.yaml")["hash"] == data("plan", "small.yaml")["hash"]


def test_why_shows_one_chain() -> None:
    assert shown("plan", "small.yaml", "--why", "training.epochs") == (
        "training.epochs = 4\n  recipe: small.yaml:8:20\n"
    )


def test_why_with_json_prints_that_value_alone() -> None:
    assert data("plan", "small.yaml", "--why", "training.epochs") == {
        "key": "training.epochs",
        "value": 4,
        "source": "recipe",
        "why": "small.yaml:8:20",
    }


def test_why_of_a_component_with_json_names_the_full_key() -> None:
    content = data("plan", "small.yaml", "--why", "fusion")
    assert (content["key"], content["value"]) == ("learning_rates.fusion", 6e-4)
    assert content["steps"][-1] == "= 0.0006"


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_why_of_an_unknown_key_is_refused_in_either_form(form: tuple[str, ...]) -> None:
    message = refused("plan", "small.yaml", "--why", "fusion.dimm", *form)
    assert "did you mean 'fusion.dim'?" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--full", "--yaml"), "--full and --yaml show different things"),
        (("--why", "seed", "--against", "small.yaml"), "--why and --against show different things"),
        (("--json", "--yaml"), "--json and --yaml show different things"),
    ],
)
def test_two_views_at_once_are_refused(options: tuple[str, ...], message: str) -> None:
    assert message in refused("plan", "small.yaml", *options)


# ------------------------------------------------------------------ changes


def test_set_changes_a_key_and_is_named_as_the_source() -> None:
    text = shown("plan", "small.yaml", "--set", "training.epochs=7", "--why", "training.epochs")
    assert text == "training.epochs = 7\n  set: --set training.epochs=7\n"


def test_a_wrong_set_points_into_the_argument() -> None:
    message = refused("plan", "small.yaml", "--set", "fusion.type=multiplicatve")
    assert message.startswith("--set  fusion.type\n   | fusion.type=multiplicatve\n")
    assert "did you mean 'multiplicative'?" in message


def test_against_another_recipe() -> None:
    Path("other.yaml").write_text(RECIPE.replace("multiplicative", "concatenation"))
    text = shown("plan", "small.yaml", "--against", "other.yaml")
    assert text.startswith("against other.yaml\n")
    assert "fusion.type" in text
    assert "to keep        experts.fourier, experts.zernike, as a start: 'weights: run:" in text


def test_against_itself_with_a_change() -> None:
    content = data("plan", "small.yaml", "--set", "seed=5", "--against", "small.yaml")
    assert [change["key"] for change in content["changes"]] == ["seed"]


@pytest.mark.parametrize("how", ["directory", "id", "part of the id"])
def test_against_a_run(how: str) -> None:
    run = Path("somewhere", "small-0a1b2c3d-s0")
    run.mkdir(parents=True)
    made = make_plan(read_recipe(Path("small.yaml")), Path("runs"))
    (run / "plan.json").write_text(json.dumps(sealed(made)))
    wanted = {"directory": str(run), "id": run.name, "part of the id": "0a1b"}[how]
    content = data(
        "plan", "small.yaml", "--set", "name=new", "--against", wanted, "--runs", "somewhere"
    )
    assert content == {
        "changes": [{"key": "name", "old": "small", "new": "new", "cost": "nothing"}],
        "kept": [
            "experts.fourier",
            "experts.zernike",
            "heads.fourier",
            "heads.zernike",
            "fusion",
            "global_head",
        ],
        "retrained": [],
    }


def test_against_no_such_run_is_exit_code_3() -> None:
    Path("runs").mkdir()
    message = refused("plan", "small.yaml", "--against", "nowhere", code=3)
    assert "runs: no runs there" in message


def test_against_a_run_whose_plan_is_damaged() -> None:
    run = Path("runs", "small-0a1b2c3d-s0")
    run.mkdir(parents=True)
    (run / "plan.json").write_text("{}")
    message = refused("plan", "small.yaml", "--against", run.name)
    assert (
        message == f"{run / 'plan.json'}: not a plan: it has no 'format'; plan the recipe again\n"
    )


# ------------------------------------------------------------------ errors


def test_a_missing_recipe_names_the_nearest_file() -> None:
    assert refused("plan", "smal.yaml") == "smal.yaml: no such file; did you mean small.yaml?\n"


def test_a_directory_is_no_recipe() -> None:
    assert "is a directory" in refused("plan", ".")


def test_missing_data_is_exit_code_2() -> None:
    assert "absent.npz" in refused("plan", "small.yaml", "--set", "data.path=absent.npz")


# --- errors for programs --------------------------------------------------------------------


def test_with_json_a_known_error_is_the_last_line_of_stderr(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(RECIPE.replace("type: multiplicative", "type: multiplicatve"))
    done = fusionrun("plan", path, "--json")
    told = json.loads(done.stderr.splitlines()[-1])
    assert (done.exit_code, done.stdout) == (2, "")
    assert (told["error"], told["exit_code"]) == ("RecipeError", 2)
    (problem,) = told["problems"]
    assert problem.pop("expected").startswith("multiplicative, ")
    assert problem == {
        "file": str(path),
        "line": 7,
        "column": 16,
        "key": "fusion.type",
        "got": "'multiplicatve'",
        "fix": "did you mean 'multiplicative'?",
    }


@pytest.mark.parametrize(
    ("arguments", "error", "code"),
    [
        (["status", "no-such-run", "--json"], "RunNotFoundError", 3),
        (["convert", "no.pt", "-o", "x.safetensors", "--json"], "UserError", 2),
    ],
)
def test_every_command_tells_it_so(arguments: list[str], error: str, code: int) -> None:
    done = fusionrun(*arguments)
    told = json.loads(done.stderr)
    assert told.keys() == {"error", "message", "exit_code", "problems"}
    assert (told["error"], told["exit_code"], done.exit_code) == (error, code, code)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["submit", "--json"], "Missing argument 'RECIPE'"),
        (["doctor", "--bogus", "--json"], "--bogus"),
        (["submitt", "--json"], "'submitt'"),
    ],
)
def test_a_mistake_in_the_command_line_is_json_too(arguments: list[str], words: str) -> None:
    command = [sys.executable, "-m", "fusionrun", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    told = json.loads(done.stderr.splitlines()[-1])
    assert (told["error"], told["exit_code"], done.returncode) == ("UserError", 2, 2)
    assert words in told["message"]
