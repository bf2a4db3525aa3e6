"""The batch script: its text whole, what Slurm reads off it, and what it does under a real bash."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
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
from tests.slurm_cluster import Cluster

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
    "python": "/opt/my env/bin/python",
    "setup": ("module load cuda", 'source "$HOME/it\'s mine/bin/activate"'),
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


@pytest.mark.parametrize("name", JOBS)
def test_it_is_the_same_each_time_and_reaches_the_first_command_with_all_options(name: str) -> None:
    text = render(JOBS[name])
    assert render(JOBS[name]) == text
    assert len(header(text)) == text.count("\n#SBATCH ")


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
    assert re.fullmatch(r"[\w.-]{1,64}", found["job-name"], re.ASCII)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_directory_is_where_slurm_goes_and_writes(text: str) -> None:
    found = header(render(replace(PLAIN, run_dir=f"/runs/{text}")))
    assert found["chdir"] == f"/runs/{text}"
    assert as_slurm_expands(found["output"]) == f"/runs/{text}/logs/job.log"


def as_slurm_expands(pattern: str) -> str:
    """What a file pattern without job ids names: see fname.c, and `file_pattern`."""
    if "\\" in pattern:
        return pattern.replace("\\\\", "\\")
    assert not re.search("%[^%]", pattern.replace("%%", ""))
    return pattern.replace("%%", "%")


@given(st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), min_size=1))
def test_any_printable_text_comes_through_the_header_unharmed(text: str) -> None:
    job = replace(PLAIN, settings={**PLAIN.settings, "qos": text})
    assert header(render(job))["qos"] == text


@pytest.mark.parametrize(
    "line", ["--a='open", '--a="open', "--a=end\\", "--a=1 --b=2", "", "--a= # b", "--a=x # b"]
)
def test_a_line_of_the_header_holds_one_word(line: str) -> None:
    if line.startswith("--a=") and line.endswith("# b"):
        assert set(header(f"#SBATCH {line}\n")) == {"a"}
        return
    with pytest.raises(UserError, match="expected one option"):
        header(f"#SBATCH {line}\n")


def test_what_comes_after_the_first_command_is_no_header() -> None:
    text = "#!/bin/bash\n#SBATCH --a=1\n\n# why\n#SBATCH --b=2\ntrue\n#SBATCH --c=3\n"
    assert header(text) == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    "text", ["two\nlines", "\r", "\x00", "\x1b[31m", "tab\t", "\u2028", "\x85", "\x7f"]
)
@pytest.mark.parametrize(
    "job",
    [
        lambda text: replace(PLAIN, run_dir=f"/runs/{text}"),
        lambda text: replace(PLAIN, name=text),
        lambda text: replace(PLAIN, python=text),
        lambda text: replace(PLAIN, pythonpath=(text,)),
        lambda text: replace(PLAIN, settings={**PLAIN.settings, "account": text}),
        lambda text: replace(PLAIN, settings={**PLAIN.settings, "setup": (text,)}),
        lambda text: replace(PLAIN, settings={**PLAIN.settings, "env": {"A": text}}),
        lambda text: replace(PLAIN, settings={**PLAIN.settings, "extra": {"wckey": text}}),
    ],
)
def test_a_control_character_is_refused_wherever_it_stands(
    text: str, job: Callable[[str], Job]
) -> None:
    with pytest.raises(UserError, match="holds the control character"):
        render(job(text))


def test_a_path_that_is_no_utf8_is_refused() -> None:
    with pytest.raises(UserError, match="expected UTF-8"):
        render(replace(PLAIN, run_dir="/runs/\udcff"))


@pytest.mark.parametrize("path", ["/runs/a,b", "/runs/a:b"])
def test_a_directory_that_cannot_be_bound_into_an_image_is_refused(path: str) -> None:
    with pytest.raises(UserError, match="for the ends of a path"):
        render(replace(JOBS["container"], run_dir=path))


# --- a template of one's own ----------------------------------------------------------------

TOP = "#!/bin/bash\n{% for option in options %}\n#SBATCH {{ option }}\n{% endfor %}\n"
BODY = "srun python -m fusionrun.job .\npython -m fusionrun.submit.after . --code $?\n"


def test_a_users_template_is_checked_and_quoted() -> None:
    text = f"{TOP}echo {{{{ job.name }}}}\n{BODY}"
    made = render(replace(PLAIN, name="a $b", template=text))
    assert made.endswith(f"\necho 'a $b'\n{BODY}")
    assert header(made) == header(render(replace(PLAIN, name="a $b")))
    with pytest.raises(UserError, match=r"'naem' is undefined|no attribute 'naem'"):
        render(replace(PLAIN, template="{{ job.naem }}"))
    with pytest.raises(UserError, match="template line 2"):
        render(replace(PLAIN, template="x\n{% if %}\n"))
    with pytest.raises(UserError, match="unsafe"):
        render(replace(PLAIN, template="{{ job.__class__.__mro__ }}"))
    with pytest.raises(UserError, match="division"):
        render(replace(PLAIN, template="{{ 1 // (world_size | int - 1) }}"))
    with pytest.raises(UserError, match="Range too big"):
        render(replace(PLAIN, template="{% for i in range(9999999) %}{% endfor %}"))
    with pytest.raises(UserError, match="a value that is null"):
        render(replace(PLAIN, template="{{ job.settings.account }}"))


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (f"#!/bin/bash\n{BODY}", 'expected the line "#SBATCH --comment='),
        (TOP.replace("{{ option", "{{ 'x' if 'signal' in option else option") + BODY, "--signal="),
        (f"{TOP}true\n#SBATCH --nice=1\n{BODY}", "after the first command, where Slurm"),
        (f"{TOP}srun python -m fusionrun.job .\n", "run '-m fusionrun.submit.after'"),
    ],
)
def test_a_users_template_without_what_a_run_needs_is_refused(template: str, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        render(replace(PLAIN, template=template))


def test_the_settings_may_name_a_template_and_the_command_line_goes_before_it(
    tmp_path: Path,
) -> None:
    own = tmp_path / "own.j2"
    own.write_text(f"{TOP}# mine\n{BODY}", encoding="utf-8")
    job = replace(PLAIN, settings=settings(template=str(own)))
    assert "\n# mine\n" in render(job)
    assert "\n# given\n" in render(replace(job, template=f"{TOP}# given\n{BODY}"))
    own.unlink()
    with pytest.raises(UserError, match=r"slurm\.template: .*own\.j2 cannot be read"):
        render(job)


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
        "import json; json.dump([dict(os.environ), sys.argv, sys.path, sys.executable, "
        "os.getcwd()], open('saw', 'w'))\n"
        "wait = float(os.environ.get('WAIT', '0'))\n"
        "for _ in range(int(wait * 20)):\n"
        "    if os.path.exists('end'): break\n"
        "    if os.path.exists('stop.json') and 'DEAF' not in os.environ: sys.exit(0)\n"
        "    time.sleep(0.05)\n"
        "sys.exit(int(os.environ.get('CODE', '0')))\n"
    )
    return tmp_path


def started(
    place: Path,
    run: str,
    given: Mapping[str, Any],
    array: tuple[int, int | None] | None = None,
    users_path: str | None = None,
    **env: str,
) -> subprocess.Popen[str]:
    """Bash with a script of its own, as Slurm would start it."""
    job = replace(
        PLAIN,
        array=array,
        run_dir=str(place / run),
        python=sys.executable,
        pythonpath=(str(place / "code"), *([users_path] if users_path else [])),
        settings=settings(**given),
    )
    (place / "job.sbatch").write_text(render(job), encoding="utf-8")
    env = {"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "HOME": str(place), **env}
    command = ["bash", str(place / "job.sbatch")]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=place, env=env)


def ran(
    place: Path,
    run: str = "run",
    given: Mapping[str, Any] | None = None,
    array: tuple[int, int | None] | None = None,
    **env: str,
) -> tuple[int, str]:
    """Its exit code and its standard error."""
    process = started(place, run, given or {}, array, **env)
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


@pytest.mark.parametrize("text", [text for text in HOSTILE if len(text) < 256])
def test_a_hostile_directory_and_variable_have_no_side_effect(place: Path, text: str) -> None:
    run = text.replace("/", "∕")
    (place / run).mkdir()
    assert ran(place, run, {"env": {"ODD": text}}) == (0, "")
    assert (place / run / "began").read_text() == text
    assert not list(place.rglob("sprung"))


def test_a_srun_that_is_not_there_is_never_a_success(place: Path) -> None:
    (place / "run").mkdir()
    (place / "bin" / "srun").unlink()
    code, errors = ran(place, PATH="/usr/bin:/bin" if not shutil.which("srun") else slim(place))
    assert code == 127
    assert "srun: command not found" in errors
    assert (place / "run" / "after").read_text() == "--code 127"


def slim(place: Path) -> str:
    """A PATH with what the script calls, and no Slurm."""
    folder = place / "slim"
    folder.mkdir()
    for name in ("bash", "mkdir", "grep", "rm", "mv", "date", "sed"):
        (folder / name).symlink_to(str(shutil.which(name)))
    return str(folder)


def saw(place: Path, run: str = "run") -> tuple[dict[str, str], list[str], list[str], str, str]:
    """The trainer's environment, arguments, module path, interpreter and working directory."""
    seen: tuple[dict[str, str], list[str], list[str], str, str] = tuple(
        json.loads((place / run / "saw").read_text())
    )
    return seen


def test_the_trainer_gets_the_directory_the_snapshot_first_and_slurms_variables(
    place: Path,
) -> None:
    (place / "run").mkdir()
    given = {"cpus_per_task": 3, "env": {"PYTHONPATH": "/mine"}}
    assert ran(place, given=given) == (0, "")
    env, arguments, _, _, directory = saw(place)
    assert arguments[1:] == [directory] == [str(place / "run")]
    assert env["PYTHONPATH"] == f"{place / 'code'}:/mine"
    assert (env["SLURM_EXPORT_ENV"], env["SRUN_CPUS_PER_TASK"]) == ("ALL", "3")


POISON = [
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"),
    *("TORCHELASTIC_USE_AGENT_STORE", "PMIX_RANK", "PMI_RANK", "SRUN_CPUS_PER_TASK", "SRUN_DEBUG"),
]


def test_another_launchers_variables_do_not_reach_the_ranks(place: Path) -> None:
    (place / "run").mkdir()
    poison = dict.fromkeys(POISON, "7")
    assert ran(place, "run", {}, None, **poison) == (0, "")
    assert not poison.keys() & saw(place)[0].keys()


def test_set_up_lines_change_the_environment_and_nothing_of_the_script(place: Path) -> None:
    (place / "run").mkdir()
    lines = (
        "set -euo pipefail; set -C",
        "cd /",
        "export PYTHONPATH=/modules/lib",
        "python=/nowhere; child=1; code=5",
        "declare -x SET_UP='a b'; [ -z \"${NOT_SET-}\" ]",
    )
    assert ran(place, given={"setup": lines}, CODE="9")[0] == 9
    env, _, _, _, directory = saw(place)
    assert (env["SET_UP"], directory) == ("a b", str(place / "run"))
    assert env["PYTHONPATH"] == f"{place / 'code'}:/modules/lib"
    assert (place / "run" / "after").read_text() == "--code 9"


@pytest.mark.parametrize(
    "line", ["exit 0", "echo 'open", "if true; then", "no_such_command", "source /no/such/file"]
)
def test_a_set_up_line_that_ends_the_script_or_is_none_is_named(place: Path, line: str) -> None:
    (place / "run").mkdir()
    code, errors = ran(place, given={"setup": (line, "touch never")})
    assert code == 72
    assert f"fusionrun: this set-up line failed: {line}" in errors
    assert errors.count("fusionrun:") == 1
    assert not (place / "run" / "never").exists()


def fake_python(folder: Path, has_torch: bool) -> Path:
    folder.mkdir()
    torch = "" if has_torch else 'case "$2" in *torch*) exit 1;; esac\n'
    python = folder / "python3"
    text = f'#!/bin/bash\nexport BY="{folder.name}"\n{torch}exec {sys.executable} "$@"\n'
    python.write_text(text)
    python.chmod(0o755)
    return python


@pytest.mark.parametrize(("has_torch", "by"), [(True, "venv"), (False, None)])
def test_the_python_that_a_set_up_line_activates_trains_if_it_can(
    place: Path, has_torch: bool, by: str | None
) -> None:
    (place / "run").mkdir()
    fake_python(place / "venv", has_torch)
    code, errors = ran(place, given={"setup": (f"PATH={place / 'venv'}:$PATH",)})
    assert (code, errors) == (0, "")
    assert saw(place)[0].get("BY") == by


def test_the_python_of_the_settings_trains_whatever_is_activated(place: Path) -> None:
    (place / "run").mkdir()
    fake_python(place / "venv", True)
    own = fake_python(place / "own one", True)
    given = {"setup": (f"PATH={place / 'venv'}:$PATH",), "python": str(own)}
    assert ran(place, given=given) == (0, "")
    assert saw(place)[0]["BY"] == "own one"


def test_a_missing_snapshot_has_its_own_code_and_no_other_code_runs(place: Path) -> None:
    (place / "run").mkdir()
    (place / "code").rename(place / "moved")
    code, errors = ran(place, PYTHONPATH=str(place / "moved"))
    assert code == 73
    assert f"fusionrun: the snapshot of the code is missing: {place / 'code'}\n" in errors


def test_a_folder_of_the_users_that_is_gone_since_the_submit_is_not_demanded(place: Path) -> None:
    (place / "run").mkdir()
    process = started(place, "run", {}, users_path="/gone/since")
    assert process.communicate(timeout=30) == (None, "")
    assert process.returncode == 0


def test_a_python_without_torch_has_its_own_code(place: Path) -> None:
    (place / "run").mkdir()
    own = fake_python(place / "own", False)
    code, errors = ran(place, given={"python": str(own)})
    assert code == 73
    assert f"{own} has no torch, or cannot import fusionrun" in errors


def test_an_image_surrounds_the_innermost_command_alone(place: Path) -> None:
    (place / "run").mkdir()
    apptainer = place / "bin" / "apptainer"
    apptainer.write_text(
        "#!/bin/bash\nnumber=$(ls apptainer.* 2>/dev/null | wc -l)\n"
        'printf "%s\\n" "$@" >"apptainer.$number"\n'
        "while [[ $1 != *.sif ]]; do shift; done\nshift 2\nexec env IN=1 "
        f'{sys.executable} "$@"\n'
    )
    apptainer.chmod(0o755)
    (place / "code" / "torch.py").touch()
    given = {"container": {"image": "/images/a b.sif", "binds": ("/data:/d",)}}
    assert ran(place, given=given) == (0, "")
    words = (place / "run" / "apptainer.1").read_text().splitlines()
    binds = [word for before, word in pairwise(words) if before == "--bind"]
    assert binds == [str(place / "run"), str(place / "code"), "/data:/d"]
    assert words[-5:] == ["/images/a b.sif", "python3", "-m", "fusionrun.job", str(place / "run")]
    assert saw(place)[0]["IN"] == "1"
    assert not (place / "run" / "apptainer.2").exists()


def test_an_image_without_apptainer_has_its_own_code(place: Path) -> None:
    (place / "run").mkdir()
    code, errors = ran(place, given={"container": {"image": "/images/a.sif"}})
    assert code == 73
    assert "apptainer: not on the PATH" in errors


def test_a_task_of_an_array_trains_the_run_of_its_line(place: Path) -> None:
    for name in ("records", "a b", "$(touch sprung)"):
        (place / name / "logs").mkdir(parents=True)
    lines = f"{place / 'a b'}\n{place / '$(touch sprung)'}\n"
    (place / "records" / "points.txt").write_text(lines)
    codes = [ran(place, "records", array=(3, 1), SLURM_ARRAY_TASK_ID=str(i)) for i in range(3)]
    assert [code for code, _ in codes] == [0, 0, 70]
    assert "fusionrun: no line 3 in" in codes[2][1]
    assert (place / "a b" / "began").exists()
    assert (place / "$(touch sprung)" / "began").exists()
    assert not list(place.rglob("sprung"))


def test_ranks_meet_where_the_rendezvous_says_and_nowhere_has_its_own_code(place: Path) -> None:
    (place / "run").mkdir()
    folder = place / "code" / "fusionrun" / "slurm"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "rendezvous.py").write_text("print('MASTER_ADDR=10.0.0.1\\nMASTER_PORT=1234')")
    assert ran(place, given={"nodes": 2}) == (0, "")
    env = saw(place)[0]
    assert (env["MASTER_ADDR"], env["MASTER_PORT"]) == ("10.0.0.1", "1234")
    (folder / "rendezvous.py").write_text("raise SystemExit('no port')")
    code, errors = ran(place, given={"nodes": 2})
    assert code == 74
    assert "no port\nfusionrun: the ranks have nowhere to meet" in errors


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
    assert "gone" in errors


def signalled(place: Path, number: signal.Signals, **given: Any) -> tuple[int, str]:
    (place / "run").mkdir()
    process = started(place, "run", given, WAIT="20")
    sign = place / "run" / ("sets_up" if given else "began")
    deadline = time.monotonic() + 20
    while not sign.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=20)
    return process.returncode, (place / "run" / "stop.json").read_text()


def test_the_warning_before_the_time_limit_asks_the_trainer_to_stop(place: Path) -> None:
    code, asked = signalled(place, signal.SIGUSR1)
    assert code == 0
    assert '"reason": "time_limit"' in asked
    assert (place / "run" / "after").read_text() == "--code 0"


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_during_the_set_up_asks_the_trainer_too(
    place: Path, number: signal.Signals
) -> None:
    code, asked = signalled(place, number, setup=("touch sets_up; sleep 0.5",))
    assert code == 0
    assert ('"time_limit"' in asked) == (number == signal.SIGUSR1)
    assert (place / "run" / "began").exists()
    assert (place / "run" / "after").read_text().startswith("--code 0")


def test_after_both_signals_the_trainers_own_code_counts(place: Path) -> None:
    (place / "run").mkdir()
    process = started(place, "run", {}, WAIT="20", DEAF="1", CODE="9")
    while not (place / "run" / "began").exists():
        time.sleep(0.02)
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
        process.send_signal(number)
        time.sleep(0.2)
    (place / "run" / "end").touch()
    process.communicate(timeout=20)
    assert process.returncode == 9
    assert (place / "run" / "after").read_text() == "--code 9 --cancelled"


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


# --- what Slurm makes of it -----------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["50% %j %%", 'it\'s "b" # \\n %j', "$(touch x); `touch x`", "ü€漢🙂 \\"]
)
def test_slurm_goes_to_a_hostile_directory_writes_there_and_keeps_the_name(
    cluster: Cluster, tmp_path: Path, text: str
) -> None:
    place = tmp_path / text
    (place / "logs").mkdir(parents=True)
    made = render(replace(PLAIN, name=text, run_dir=str(place)))
    script = place / "job.sbatch"
    script.write_text(made.replace("\nset -u\n", "\npwd; exit 3\n"), encoding="utf-8")
    job_id = cluster.sbatch(str(script))
    assert cluster.wait(job_id, "FAILED") == "FAILED"
    assert (place / "logs" / "job.log").read_text() == f"{place}\n"
    assert f"fusionrun:{PLAIN.run_id} {text}\n" in cluster.squeue("-t", "all", "-h", "-o", "%k")


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
        ({"time": "00:00:00"}, "slurm.time", "0 is no limit at all"),
        ({"time": "00:02:30", "grace": 120}, "slurm.grace", "at most 90"),
        ({"time": "00:01:00"}, "slurm.time", "at least 90 seconds"),
        ({"time": "01:00:00", "grace": 5}, "slurm.grace", "at least 30"),
        ({"extra": {"partition": "x"}}, "slurm.extra.partition", "'slurm.partition' sets it"),
        ({"extra": {"exclusve": True}}, "slurm.extra.exclusve", "did you mean 'exclusive'?"),
        ({"extra": {"gpus": 4}}, "slurm.extra.gpus", "'slurm.gpus_per_node' sets it"),
        ({"extra": {"mem_per_gpu": "4G"}, "mem": "9G"}, "slurm.extra.mem_per_gpu", "one of them"),
        ({"extra": {"wait": True}}, "slurm.extra.wait", "fusionrun needs it as it is"),
        ({"extra": {"a b": 1}}, "slurm.extra.a b", "'sbatch --help' lists them"),
        ({"mail": "END"}, "slurm.mail", "expected  an address"),
        ({"env": {"RANK": "y"}}, "slurm.env.RANK", "that the launcher sets"),
        ({"env": {"UID": "y"}}, "slurm.env.UID", "bash keeps for itself"),
        ({"env": {"A;B": "y"}}, "slurm.env.A;B", "letters, digits and _"),
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
        ({"gpus_per_node": "a100:2,h100:1"}, 3, 3),
        ({"gres": "gpu:a100:1,gpu:h100:2"}, 3, 3),
        ({"gres": "gpu:a100:3,shard:8"}, 3, 3),
        ({"gres": "shard:8"}, 1, 1),
        ({"gpus_per_node": 0}, 1, 1),
    ],
)
def test_one_process_trains_on_each_gpu(given: dict[str, Any], per_node: int, world: int) -> None:
    assert processes_per_node(settings(**given)) == per_node
    assert world_size(settings(**given)) == world
