"""Values of a recipe are values: no template takes them for code, and no shell does."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionrun.errors import UserError
from fusionrun.recipe.read import read_recipe
from fusionrun.schema.base import plain
from fusionrun.schema.slurm import Slurm
from fusionrun.slurm.checks import problems
from fusionrun.slurm.script import Job, header, render
from tests.hostile.conftest import Canary, refused
from tests.program import fusionrun

TOP = "#!/bin/bash\n{% for option in options %}\n#SBATCH {{ option }}\n{% endfor %}\n"
BODY = "srun python -m fusionrun.job .\npython -m fusionrun.submit.after . --code $?\n"
# The canary's path comes from the environment: a folder's name holds no slash.
COMMAND = 'touch "$CANARY"'
SHELL = f"$({COMMAND}) `{COMMAND}` '; {COMMAND}; ' \"; {COMMAND}; \" & {COMMAND} | {COMMAND} #"
JINJA = "{{ 7*7 }} {% import 'os' as os %} {{ ''.__class__.__mro__ }} {# gone #}"
HOSTILE = {"shell": SHELL, "jinja": JINJA}


def settings(**given: Any) -> dict[str, Any]:
    section: dict[str, Any] = plain(Slurm.model_validate(given))
    return section


def job(folder: Path, **changes: Any) -> Job:
    return replace(Job("x-0123abcd-s0", "x", str(folder), "/bin/false", (), settings()), **changes)


def with_value(folder: Path, where: str, text: str) -> Job:
    """A job that holds a text in one place."""
    if where in ("name", "python"):
        return job(folder, **{where: text})
    if where == "pythonpath":
        return job(folder, pythonpath=(text,))
    if where == "env":
        return job(folder, settings=settings(env={"ODD": text}))
    return job(folder, settings=settings(**({} if where == "run_dir" else {where: text})))


def run(script: str, folder: Path, canary: Canary) -> subprocess.CompletedProcess[str]:
    """The script under bash: as far as it comes without a Python, which is past every value."""
    path = folder / "job.sbatch"
    path.write_text(script, "utf-8")
    checked = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    env = {"PATH": os.environ["PATH"], "CANARY": str(canary.path)}
    return subprocess.run(
        ["bash", path], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


# ------------------------------------------------------------------ the shell


def test_the_payload_springs_where_nothing_quotes_it(tmp_path: Path, canary: Canary) -> None:
    run(f"echo {SHELL}", tmp_path, canary)
    assert canary.sang()
    canary.path.unlink()


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize(
    "where",
    ["name", "run_dir", "python", "pythonpath", "env", "account", "partition", "qos", "mail"],
)
def test_a_value_in_the_script_is_one_word(
    tmp_path: Path, canary: Canary, where: str, kind: str
) -> None:
    text = HOSTILE[kind].replace("/", "")
    folder = tmp_path / text if where == "run_dir" else tmp_path / "run"
    folder.mkdir()
    made = render(with_value(folder, where, text))
    done = run(made, folder, canary)
    assert done.returncode == 73, done.stderr  # (no such Python)
    options = header(made)
    if where in ("account", "partition", "qos"):
        assert options[where] == text
    if where == "name":
        assert options["comment"].endswith(text)
    if where == "env":
        assert subprocess.check_output(
            ["bash", "-c", next(line for line in made.splitlines() if "ODD=" in line)
             + '\nprintf %s "$ODD"'], text=True) == text  # fmt: skip


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("env", f"A=1; {COMMAND}; B"),
        ("env", "$(x)"),
        ("env", "A B"),
        ("env", ""),
        ("env", "IFS"),
        ("extra", f"nice=1; {COMMAND}"),
        ("extra", "wrap"),
        ("extra", "export"),
        ("extra", "output"),
        ("extra", "chdir"),
    ],
)
def test_a_name_in_the_script_is_a_name(key: str, name: str) -> None:
    (problem,) = problems(settings(**{key: {name: "x"}}))
    assert problem.key == f"slurm.{key}.{name}"
    assert problem.expected


@pytest.mark.parametrize("link", ["logs", "logs/job.out"])
def test_an_array_does_not_log_through_a_link(tmp_path: Path, canary: Canary, link: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "points.txt").write_text(f"{folder}\n")
    if link == "logs":
        (tmp_path / "elsewhere").mkdir()
        (folder / "logs").symlink_to(tmp_path / "elsewhere")
    else:
        (folder / "logs").mkdir()
        for name in ("job.out", "job.log"):
            (folder / "logs" / name).symlink_to(canary.path)
    script = render(job(folder, array=(1, None)))
    done = run(f"SLURM_ARRAY_TASK_ID=0\n{script}", folder, canary)
    assert done.returncode == 71
    assert "a link stands for the log" in done.stderr


# ------------------------------------------------------------------ templates

ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ job.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.system('COMMAND') }}",
    "{{ lipsum.__globals__['os'].popen('COMMAND').read() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ (job|attr('__class__')).__mro__ }}",
    "{{ '{0.__class__.__mro__}'.format(job) }}",
    "{{ job.python.format.__globals__ }}",
    "{{ options.append.__self__.__class__ }}",
    "{% import 'os' as os %}{{ os.system('COMMAND') }}",
    "{% include '/etc/passwd' %}",
    "{% extends '/etc/passwd' %}",
    "{% from 'os' import system %}",
    "{{ open('/etc/passwd').read() }}",
    "{{ __import__('os').system('COMMAND') }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ 'ü'.encode('ascii') }}",
    "{% for i in range(10 ** 9) %}{% endfor %}",
]


@pytest.mark.parametrize("text", ESCAPES)
def test_a_users_template_stays_in_its_sandbox(tmp_path: Path, canary: Canary, text: str) -> None:
    own = TOP + text.replace("COMMAND", canary.command) + BODY
    with pytest.raises(UserError, match="the batch script's template"):
        render(job(tmp_path, template=own))


def test_the_values_that_a_users_template_shows_are_quoted(tmp_path: Path) -> None:
    own = f"{TOP}echo {{{{ job.name }}}}\n{BODY}"
    made = render(job(tmp_path, name=JINJA, template=own))
    assert subprocess.check_output(["bash", "-c", made.splitlines()[-3]], text=True) == JINJA + "\n"


@pytest.mark.parametrize("kind", HOSTILE)
def test_init_writes_hostile_views_as_values(tmp_path: Path, canary: Canary, kind: str) -> None:
    views = [
        HOSTILE[kind].replace("/", ""),
        "a: b",
        "- x",
        "!!python/name:os.system",
        "&a *a",
        "# c",
    ]
    arrays = {view: np.ones((40, 3)) for view in views}
    np.savez(tmp_path / f"{kind}; $(x) {{{{ 7*7 }}}}.npz", label=np.arange(40) % 2, **arrays)
    written = tmp_path / "made.yaml"
    (data,) = tmp_path.glob("*.npz")
    assert fusionrun("init", written, "--data", data).exit_code == 0
    experts = read_recipe(written).recipe.experts
    assert sorted(expert.view for expert in experts.values()) == sorted(views)
    assert fusionrun("plan", written).exit_code == 0


def test_init_takes_a_hostile_label_for_a_name(tmp_path: Path, canary: Canary) -> None:
    np.savez(tmp_path / "d.npz", v=np.ones((40, 3)), label=np.arange(40) % 2)
    said = refused(fusionrun("init", tmp_path / "made.yaml", "--data", tmp_path / "d.npz",
                             "--label", JINJA))  # fmt: skip
    assert "label" in said
    assert not (tmp_path / "made.yaml").exists()
