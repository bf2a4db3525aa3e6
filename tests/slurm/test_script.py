"""The batch script: its text whole, what Slurm reads off it, and what it does under a real bash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionrun.errors import UserError
from fusionrun.schema.base import plain
from fusionrun.schema.slurm import Slurm
from fusionrun.slurm.checks import problems, time_s
from fusionrun.slurm.request import processes_per_node, world_size
from fusionrun.slurm.script import Job, header, render

GOLDEN = Path(__file__).parent / "golden"


def settings(**given: Any) -> Mapping[str, Any]:
    section: Mapping[str, Any] = plain(Slurm.model_validate(given))
    return section


PLAIN = Job(
    run_id="digits-0123abcd-s0",
    name="digits",
    run_dir="/runs/digits-0123abcd-s0",
    python="/opt/env/bin/python",
    pythonpath=("/runs/.snapshots/0123456789abcdef/package",),
    settings=settings(),
)
EVERYTHING = {
    "partition": "gpu",
    "account": "lab",
    "qos": "high",
    "constraint": "a100&nvlink",
    "reservation": "maintenance",
    "nodes": 2,
    "gpus_per_node": "a100:4",
    "cpus_per_task": 8,
    "mem": "64G",
    "time": "1-12:00:00",
    "grace": 300,
    "requeue": False,
    "exclude": "n[1-3]",
    "nodelist": "n[4-9]",
    "mail": "me@example.org",
    "extra": {"nice": 100, "exclusive": True, "contiguous": False},
    "setup": ("module load cuda", 'source "$HOME/my env/bin/activate"'),
    "env": {"HF_HOME": "/scratch/it's here", "EMPTY": " "},
}
JOBS = {
    "plain": PLAIN,
    "everything": replace(PLAIN, settings=settings(**EVERYTHING), after="afterok:17"),
    "torchrun": replace(
        PLAIN, settings=settings(nodes=2, gpus_per_node=2, launcher="torchrun", cpus_per_task=4)
    ),
    "array": replace(PLAIN, array=(6, 2), settings=settings(time="01:00:00")),
    "container": replace(
        PLAIN,
        settings=settings(
            gpus_per_node=1, container={"image": "/images/torch 2.sif", "binds": ("/data",)}
        ),
    ),
}


@pytest.mark.parametrize("name", JOBS)
def test_the_script_is_as_agreed_to_the_letter(name: str) -> None:
    assert render(JOBS[name]) == (GOLDEN / f"{name}.sbatch").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", JOBS)
def test_bash_can_read_it(name: str) -> None:
    done = subprocess.run(["bash", "-n"], input=render(JOBS[name]), text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_header_says_what_was_asked_for() -> None:
    found = header(render(JOBS["everything"]))
    asked = {
        "partition": "gpu",
        "constraint": "a100&nvlink",
        "nodes": "2",
        "gpus-per-node": "a100:4",
        "ntasks-per-node": "4",
        "cpus-per-task": "8",
        "time": "1-12:00:00",
        "no-requeue": "",
        "signal": "B:USR1@300",
        "mail-user": "me@example.org",
        "nice": "100",
        "exclusive": "",
        "dependency": "afterok:17",
        "kill-on-invalid-dep": "yes",
        "open-mode": "append",
    }
    assert {key: found.get(key) for key in asked} == asked
    assert "contiguous" not in found
    assert found["comment"].split()[0] == "fusionrun:digits-0123abcd-s0"


HOSTILE = [
    "two  spaces",
    'it\'s "quoted"',
    "$(touch sprung)",
    "`touch sprung`",
    "; touch sprung",
    "a # b",
    "50% %j %%",
    "../../x",
    "-rf",
    "ü€漢字🙂",
    "x" * 300,
    "back\\slash\\n",
    "!history *?[a-z]",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_name_comes_through_the_header_unharmed(text: str) -> None:
    job = replace(PLAIN, name=text, settings=settings(account=text))
    found = header(render(job))
    assert found["account"] == text
    assert found["comment"].partition(" ")[2] == text


@given(st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), min_size=1))
def test_any_printable_text_comes_through_the_header_unharmed(text: str) -> None:
    job = replace(PLAIN, settings={**PLAIN.settings, "qos": text})
    assert header(render(job))["qos"] == text


@pytest.mark.parametrize("text", ["two\nlines", "\r", "\x00", "\x1b[31m", "tab\t", "\u2028"])
def test_a_control_character_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="holds the control character"):
        render(replace(PLAIN, run_dir=f"/runs/{text}"))
    with pytest.raises(UserError, match="holds the control character"):
        render(replace(PLAIN, name=text))


def test_a_users_template_is_checked_and_quoted() -> None:
    text = "#!/bin/bash\necho {{ job.name }}\n"
    made = render(replace(PLAIN, name="a $b", template=text))
    assert made == "#!/bin/bash\necho 'a $b'\n"
    with pytest.raises(UserError, match=r"'naem' is undefined|no attribute 'naem'"):
        render(replace(PLAIN, template="{{ job.naem }}"))
    with pytest.raises(UserError, match="template line 2"):
        render(replace(PLAIN, template="x\n{% if %}\n"))
    with pytest.raises(UserError, match="unsafe"):
        render(replace(PLAIN, template="{{ job.__class__.__mro__ }}"))


# --- what it does ---------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with stand-ins for srun and for the two modules that the script calls."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "srun").write_text(
        '#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n'
    )
    (programs / "srun").chmod(0o755)
    package = tmp_path / "code" / "fusionrun"
    (package / "submit").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "submit" / "__init__.py").touch()
    (package / "submit" / "after.py").write_text(
        "import sys\n"
        "if __name__ == '__main__':\n"
        "    open('after', 'w').write(' '.join(sys.argv[2:]))\n"
        "    sys.exit(int(sys.argv[3]))\n"
    )
    (package / "job.py").write_text(
        "import os, sys, time\n"
        "open('began', 'w').write(os.environ.get('ODD', ''))\n"
        "wait = float(os.environ.get('WAIT', '0'))\n"
        "for _ in range(int(wait * 20)):\n"
        "    if os.path.exists('stop.json'): sys.exit(0)\n"
        "    time.sleep(0.05)\n"
        "sys.exit(int(os.environ.get('CODE', '0')))\n"
    )
    return tmp_path


def started(place: Path, run: str, given: Mapping[str, Any], **env: str) -> subprocess.Popen[str]:
    """Bash with a script of its own, as Slurm would start it."""
    job = replace(
        PLAIN,
        run_dir=str(place / run),
        python=sys.executable,
        pythonpath=(str(place / "code"),),
        settings=settings(**given),
    )
    (place / "job.sbatch").write_text(render(job), encoding="utf-8")
    env = {"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "HOME": str(place), **env}
    command = ["bash", str(place / "job.sbatch")]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=place, env=env)


def ran(
    place: Path, run: str = "run", given: Mapping[str, Any] | None = None, **env: str
) -> tuple[int, str]:
    process = started(place, run, given or {}, **env)
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors


def test_it_trains_and_ends_as_what_follows_says(place: Path) -> None:
    (place / "run").mkdir()
    assert ran(place) == (0, "")
    assert (place / "run" / "after").read_text() == "--code 0"


def test_a_crash_is_never_a_success(place: Path) -> None:
    (place / "run").mkdir()
    assert ran(place, CODE="9")[0] == 9
    assert (place / "run" / "after").read_text() == "--code 9"


@pytest.mark.parametrize("text", HOSTILE[:10])
def test_a_hostile_directory_and_variable_have_no_side_effect(place: Path, text: str) -> None:
    run = text.replace("/", "∕")
    (place / run).mkdir()
    assert ran(place, run, {"env": {"ODD": text}}) == (0, "")
    assert (place / run / "began").read_text() == text
    assert not list(place.rglob("sprung"))


def test_a_missing_run_directory_has_its_own_code(place: Path) -> None:
    code, errors = ran(place)
    assert code == 71
    assert "the run directory is missing" in errors


def test_a_failing_set_up_line_is_named(place: Path) -> None:
    (place / "run").mkdir()
    lines = ("export A=$NOT_SET", "false # it's so", "touch never")
    code, errors = ran(place, given={"setup": lines})
    assert code == 72
    assert "fusionrun: this set-up line failed: false # it's so\n" in errors
    assert not (place / "run" / "never").exists()


def test_a_python_without_fusionrun_has_its_own_code(place: Path) -> None:
    (place / "run").mkdir()
    (place / "code" / "fusionrun" / "__init__.py").write_text("raise ImportError('gone')")
    code, errors = ran(place)
    assert code == 73
    assert "cannot import fusionrun from" in errors


def signalled(place: Path, number: signal.Signals) -> tuple[int, str]:
    (place / "run").mkdir()
    process = started(place, "run", {}, WAIT="20")
    deadline = time.monotonic() + 20
    while not (place / "run" / "began").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=20)
    return process.returncode, (place / "run" / "stop.json").read_text()


def test_the_warning_before_the_time_limit_asks_the_trainer_to_stop(place: Path) -> None:
    code, asked = signalled(place, signal.SIGUSR1)
    assert code == 0
    assert '"reason": "time_limit"' in asked
    assert (place / "run" / "after").read_text() == "--code 0"


def test_term_asks_too_and_says_that_nothing_may_go_on(place: Path) -> None:
    code, asked = signalled(place, signal.SIGTERM)
    assert code == 0
    assert '"reason": "signal"' in asked
    assert (place / "run" / "after").read_text() == "--code 0 --cancelled"


def test_a_request_that_an_attempt_before_obeyed_is_forgotten_a_persons_is_not(
    place: Path,
) -> None:
    (place / "run").mkdir()
    (place / "run" / "stop.json").write_text('{"reason": "time_limit"}')
    ran(place)
    assert not (place / "run" / "stop.json").exists()
    (place / "run" / "stop.json").write_text('{"reason": "cancel"}')
    ran(place)
    assert (place / "run" / "stop.json").exists()


# --- preflight ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("1:30", 90),
        ("02:00:00", 7200),
        ("1-12", 129600),
        ("1-12:30", 131400),
        ("2-00:00:01", 172801),
        ("24h", None),
        ("", None),
    ],
)
def test_times_are_read_as_slurm_does(text: str, seconds: int | None) -> None:
    assert time_s(text) == seconds


@pytest.mark.parametrize(
    ("given", "key", "words"),
    [
        ({"time": "1:30"}, "slurm.time", "'1:30': 90 seconds"),
        ({"time": "00:02:30", "grace": 120}, "slurm.grace", "at most 90"),
        ({"time": "01:00:00", "grace": 5}, "slurm.grace", "at least 30"),
        ({"extra": {"partition": "x"}}, "slurm.extra.partition", "'slurm.partition' sets it"),
        ({"extra": {"exclusve": True}}, "slurm.extra.exclusve", "did you mean 'exclusive'?"),
        ({"env": {"2X": "y"}}, "slurm.env.2X", "not beginning with a digit"),
        ({"env": {"SLURM_X": "y"}}, "slurm.env.SLURM_X", "no variable of Slurm's own"),
    ],
)
def test_what_slurm_would_misread_is_refused(given: dict[str, Any], key: str, words: str) -> None:
    (problem,) = problems(settings(**given))
    assert problem.key == key
    assert words in problem.render()


def test_what_is_asked_properly_passes() -> None:
    assert problems(settings(**EVERYTHING)) == []


@pytest.mark.parametrize(
    ("given", "per_node", "world"),
    [
        ({}, 1, 1),
        ({"gpus_per_node": 4, "nodes": 2}, 4, 8),
        ({"gpus_per_node": "a100:2"}, 2, 2),
        ({"gpus_per_node": "a100"}, 1, 1),
        ({"gres": "gpu:a100:3,shard:8"}, 3, 3),
        ({"gres": "shard:8"}, 1, 1),
        ({"gpus_per_node": 0}, 1, 1),
    ],
)
def test_one_process_trains_on_each_gpu(given: dict[str, Any], per_node: int, world: int) -> None:
    assert processes_per_node(settings(**given)) == per_node
    assert world_size(settings(**given)) == world
