"""What is secret is neither copied nor written down nor shown: with real projects, real git."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusionrun.store.layout import RunLayout
from fusionrun.submit.project import commit_and_diff, list_project, looks_secret
from fusionrun.submit.snapshot import take_snapshot
from tests.hostile.conftest import RECIPE
from tests.program import fusionrun
from tests.submit.life import call, only_run, until

HIDDEN = "hunter2-and-more"
SECRETS = [
    *(".env", ".env.production", ".envrc", "prod.env", "conf/.env", "server.pem", "tls.key"),
    *("id_rsa", "id_ed25519", "deploy.ppk", ".netrc", "_netrc", ".npmrc", ".pypirc", ".pgpass"),
    *(".aws/credentials", ".aws/config", ".ssh/known_hosts", ".docker/config.json", ".kube/config"),
    *("credentials.json", "client_secret.json", "hf_token", "api_key.txt", "apikey", "kaggle.json"),
    *("service-account-prod.json", "gcloud/application_default_credentials.json", "auth.json"),
    *("secrets/db.yaml", "passwords.txt", "private-key.txt", "prod.tfvars", ".git-credentials"),
    *("deep/er/.HTPASSWD", "my.keystore", "store.jks", "secrets.py", "SECRET.TXT"),
]
HARMLESS = [
    *("model.py", "tokenizer.json", "token_loss.py", "environment.yaml", "keys.py", "monkey.txt"),
    *("docker/Dockerfile", ".docker/Dockerfile", "aws/main.py", "env/setup.py", "keyboard.csv"),
]


def git(folder: Path, *arguments: str) -> None:
    names = {
        f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    subprocess.run(
        ["git", "-C", folder, *arguments],
        env={**os.environ, **names, "GIT_CONFIG_GLOBAL": os.devnull},
        check=True,
        capture_output=True,
    )


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture(params=["git", "folder"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A project with every kind of secret; in git all of them were committed once."""
    root = tmp_path / "project"
    for name in HARMLESS:
        write(root / name, "harmless\n")
    for name in SECRETS:
        write(root / name, f"old {HIDDEN}\n")
    write(root / "recipe.yaml", RECIPE)
    if request.param == "git":
        git(root, "init", "-q")
        git(root, "add", "-A", "-f")
        git(root, "commit", "-qm", "oops")
        for name in SECRETS:
            write(root / name, f"new {HIDDEN}\n")
        (root / SECRETS[0]).unlink()  # a deletion shows what was there
        git(root, "rm", "-q", "-f", SECRETS[1])
    return root


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    yield from ((path, path.read_bytes()) for path in folder.rglob("*") if path.is_file())


def holds(folder: Path, text: str) -> list[Path]:
    return [path for path, content in contents(folder) if text.encode() in content]


# ------------------------------------------------------------------ names


@pytest.mark.parametrize("name", SECRETS)
def test_a_name_says_that_it_is_secret(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize("name", HARMLESS)
def test_a_name_says_that_it_is_not(name: str) -> None:
    assert not looks_secret(name)


# ------------------------------------------------------------------ the snapshot


def test_no_secret_is_in_a_snapshot_and_all_are_listed(project: Path, tmp_path: Path) -> None:
    snapshot = take_snapshot(project, tmp_path / "runs")
    assert holds(snapshot.path, HIDDEN) == []
    assert HIDDEN not in snapshot.diff
    there = {name for name in SECRETS if (project / name).exists()}
    named = there if snapshot.commit else {_as_walked(name) for name in there}
    left = {left.path: left.why for left in snapshot.left_out}
    harmless = {".docker/": "hidden"} if ".docker/" in named else {}
    assert left == {**dict.fromkeys(named, "may hold a secret"), **harmless}
    kept = {name.removeprefix("project/") for name in snapshot.files}
    assert {"model.py", "tokenizer.json", "keyboard.csv", "recipe.yaml"} <= kept


def _as_walked(name: str) -> str:
    """Without git nothing of a hidden folder belongs to the project: it is named as a whole."""
    first, slash, _ = name.partition("/")
    return f"{first}/" if slash and first.startswith(".") else name


@pytest.mark.parametrize("target", ["inside", "outside"])
def test_a_link_is_as_secret_as_what_it_leads_to(tmp_path: Path, target: str) -> None:
    root = tmp_path / "project"
    secret = root / ".env" if target == "inside" else tmp_path / ".aws" / "config"
    write(secret, HIDDEN)
    write(root / "model.py", "")
    (root / "settings.txt").symlink_to(secret)
    found = list_project(root, tmp_path / "runs")
    assert found.files == ("model.py",)
    assert ("settings.txt", "may hold a secret") in found.left_out


def test_secrets_are_listed_before_all_else(tmp_path: Path) -> None:
    root = tmp_path / "project"
    for number in range(20):
        (root / f"a{number}").mkdir(parents=True)
        (root / f"a{number}" / "gone").symlink_to("nothing")
    write(root / "z.pem", HIDDEN)
    snapshot = take_snapshot(root, tmp_path / "runs")
    assert snapshot.left_out_in_words.startswith("z.pem (may hold a secret), ")
    assert snapshot.left_out_in_words.endswith(", and 13 more")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("diff.external", "cat"),
        ("diff.submodule", "diff"),
        ("diff.noprefix", "true"),
        ("diff.renames", "copies"),
        ("diff.relative", "true"),
        ("color.ui", "always"),
    ],
)
def test_a_diff_shows_no_secret_whatever_git_is_configured_to(
    tmp_path: Path, option: str, value: str
) -> None:
    root, inner = tmp_path / "project", tmp_path / "project" / "inner"
    for folder in (inner, root):
        write(folder / ".env", HIDDEN)
        write(folder / "model.py", "a = 1\n")
        git(folder, "init", "-q")
        git(folder, "add", "-A", "-f", ".")
        git(folder, "commit", "-qm", "oops")
    write(inner / ".env", f"new {HIDDEN}")
    git(inner, "commit", "-qam", "again")
    (root / ".env").rename(root / ".env.old")
    write(root / "model.py", "a = 2\n")
    git(root, "add", "-A", "-f", ".")
    git(root, "config", option, value)
    for folder in (root, inner):
        assert HIDDEN not in commit_and_diff(folder)[1]
    assert "+a = 2" in commit_and_diff(root)[1]
    assert "\x1b" not in commit_and_diff(root)[1]


# ------------------------------------------------------------------ screens and records

SHELL = {
    "HF_TOKEN": "hf-shell-value-1",
    "WANDB_API_KEY": "wandb-shell-value-2",
    "AWS_SECRET_ACCESS_KEY": "aws-shell-value-3",
    "DB_PASSWORD": "db-shell-value-4",
}


def test_a_submit_screen_names_what_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "recipe.yaml", RECIPE)
    write(tmp_path / ".env", HIDDEN)
    done = fusionrun("submit", tmp_path / "recipe.yaml", "--executor", "local", "--dry-run",
                     "--runs", tmp_path / "runs")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert ".env (may hold a secret)" in done.stdout
    assert HIDDEN not in done.stdout


@pytest.mark.slow
def test_nothing_of_a_run_holds_a_secret_of_the_shell_or_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planned, submitted, trained in the project's own folder, exported: then all is searched."""
    for name, value in SHELL.items():
        monkeypatch.setenv(name, value)
    write(tmp_path / "recipe.yaml", RECIPE)
    write(tmp_path / ".env", "")
    write(tmp_path / "model.py", "a = 1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A", "-f", ".")
    git(tmp_path, "commit", "-qm", "oops")
    write(tmp_path / ".env", HIDDEN)
    write(tmp_path / "model.py", "a = 2\n")
    foreground = [sys.executable, "-m", "fusionrun"]
    said = [
        subprocess.run([*foreground, *words], cwd=tmp_path, capture_output=True, check=True).stdout
        for words in (["plan", "recipe.yaml", "--full"], ["train", "recipe.yaml"])
    ]
    layout = only_run(tmp_path)
    assert "+a = 2" in json.loads(layout.environment.read_text())["git"]["diff"]
    submit = call("submit", "recipe.yaml", "--executor", "local", "--new", cwd=tmp_path,
                  env=os.environ)  # fmt: skip
    assert submit.returncode == 0, submit.stderr
    second = RunLayout(layout.root.with_name(f"{layout.id}-2"))
    until("it has ended", second.outcome.exists)
    left = json.loads(second.submission.read_text())["snapshot"]["left_out"]
    assert left == [[".env", "may hold a secret"]]
    for secret in (HIDDEN, *SHELL.values()):
        assert holds(tmp_path / "runs", secret) == []
        assert secret.encode() not in b"".join([*said, submit.stdout.encode()])
