"""Starts a Slurm cluster of several nodes on this machine, as whoever runs it, and ends it.

It touches nothing outside its own folder: not the system's munge, not the system's Slurm. All
its processes are held by a keeper (keeper.py), which ends them even when this process is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Self

from . import leftovers, packages, processes
from .config import MAX_GPUS, Layout, Shape, gres_conf, slurm_conf

_REPOSITORY = Path(__file__).parents[2]
_START_TIMEOUT_S = 30.0
_COMMAND_TIMEOUT_S = 60.0
_POLL_S = 0.05
# Below the range from which the kernel hands out ports to outgoing connections.
_PORTS = range(20000, 32000)
# A step's socket is root + "/spool/n1/n1_1234567.4294967290", and the kernel allows 107 bytes.
_MAX_ROOT_LENGTH = 70
_SAFE_ROOT = re.compile(r"/[\w./+-]+", re.ASCII)
_FINAL = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"} | {
    "OUT_OF_MEMORY",
    "TIMEOUT",
}
_DAEMONS = {"munged", "slurmctld", "slurmscriptd", "slurmd", "slurmstepd"}
_DAEMON_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LEAKS = ("SLURM", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SCANCEL_", "SINFO_", "PMI")


class ClusterError(Exception):
    """The cluster, or a command given to it, did not do what was asked."""


class Cluster:
    """A Slurm cluster on this machine; a context manager that starts and stops it.

    Args:
        root: Folder for all its files, made when absent; an absolute path of at most 70 plain
            characters. None takes a new temporary folder, removed at the end.
        nodes: Number of nodes, named n1, n2, … (names that do not resolve).
        cpus: CPUs a node; they need not exist.
        gpus: GPUs a node; harmless device files stand in for them.
        min_job_age_s: How long Slurm remembers a job that has ended.
        kill_wait_s: Time from TERM to KILL at a time limit or a scancel.
        requeue_wait_s: Time a requeued job waits, three seconds less (Slurm's default is 120).
        message_timeout_s: Time a command waits for the controller (Slurm's default is 10).
        max_array_size: One more than the largest index of a job array.
        settings: Further lines of slurm.conf, or other values for lines it has.

    Raises:
        ClusterError: What it needs is not installed, or a value cannot work.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        nodes: int = 2,
        cpus: int = 2,
        gpus: int = 1,
        min_job_age_s: int = 300,
        kill_wait_s: int = 5,
        requeue_wait_s: int = 10,
        message_timeout_s: int = 5,
        max_array_size: int = 1001,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        if line := packages.missing():
            raise ClusterError(f"Slurm is not installed here; install it with: {line}")
        if gpus > MAX_GPUS:
            raise ClusterError(f"gpus: got {gpus}, at most {MAX_GPUS} a node can be played")
        self._shape = Shape(
            nodes=nodes,
            cpus=cpus,
            gpus=gpus,
            min_job_age_s=min_job_age_s,
            kill_wait_s=kill_wait_s,
            requeue_wait_s=requeue_wait_s,
            message_timeout_s=message_timeout_s,
            max_array_size=max_array_size,
            settings=dict(settings or {}),
        )
        self._owns_root = root is None
        self._layout = Layout(_checked(root or Path(tempfile.mkdtemp(prefix="slurm-cluster-"))))
        self._keeper: subprocess.Popen[str] | None = None
        self._controller_runs = False
        self.env: dict[str, str] = {"SLURM_CONF": str(self._layout.conf)}

    @property
    def root(self) -> Path:
        """The folder with all its files; logs are in `log`."""
        return self._layout.root

    @property
    def node_names(self) -> tuple[str, ...]:
        """The nodes' names, n1 first."""
        return self._shape.node_names

    def environment(self) -> dict[str, str]:
        """Return this process' environment with this cluster's variables and no other Slurm's."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(_LEAKS)}
        return clean | self.env

    # Life

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all daemons and return once every node is idle; takes about two seconds.

        Raises:
            ClusterError: A daemon died or a node did not come up; ends with the log's last lines.
        """
        if self._keeper is not None:
            raise ClusterError(f"the cluster in {self.root} runs already")
        leftovers.sweep()
        self._write_files()
        self._start_keeper()
        try:
            self._start_munge()
            self._spawn("slurmctld", "slurmctld", "-D")
            for node in self.node_names:
                self._spawn(node, "slurmd", "-D", "-N", node)
            self._until(self._all_idle, "every node is idle")
        except BaseException:
            self.stop()
            raise
        self._controller_runs = True

    def stop(self) -> None:
        """End every job and every daemon at once and remove the sockets; harmless when stopped.

        Raises:
            ClusterError: Something would not end.
        """
        keeper, self._keeper = self._keeper, None
        self._controller_runs = False
        if keeper is None:
            return
        # Told in words as well: a forked child of ours may hold the other end of its input.
        keeper.communicate(json.dumps({"do": "finish"}) + "\n", timeout=_COMMAND_TIMEOUT_S)
        if keeper.returncode != 0:
            leftovers.sweep()  # it was killed, or gave up
        layout = self._layout
        layout.keeper_file.unlink(missing_ok=True)
        for folder in [layout.root] if self._owns_root else [layout.munge_dir, layout.spool_dir]:
            shutil.rmtree(folder, ignore_errors=True)
        if left := leftovers.marked(layout.root):
            raise ClusterError(f"processes of the cluster in {self.root} would not end: {left}")

    def stop_controller(self) -> None:
        """End slurmctld alone: jobs run on, commands cannot reach it. Its state is saved."""
        self._ask(do="end", name="slurmctld", signal=int(signal.SIGTERM))
        self._controller_runs = False

    def start_controller(self) -> None:
        """Start slurmctld again, with the jobs it knew, and wait until it answers.

        It takes four seconds more until it has heard from the nodes and starts jobs.
        """
        if self._controller_runs:
            return
        self._spawn("slurmctld", "slurmctld", "-D")
        self._until(self._answers, "slurmctld answers")
        self._controller_runs = True

    def reset(self) -> None:
        """Make the cluster as new for the next test: controller up, no job, every node idle."""
        self.start_controller()
        self.drain()
        if not self._all_idle():
            self._resume()
            self._until(self._all_idle, "every node is idle")

    # Jobs

    def run(self, *argv: str, timeout_s: float = _COMMAND_TIMEOUT_S) -> str:
        """Run a command on the cluster and return what it printed.

        Raises:
            ClusterError: It failed, with its own words, or took longer than `timeout_s`.
        """
        try:
            done = subprocess.run(
                argv, env=self.environment(), capture_output=True, text=True, timeout=timeout_s
            )
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"{argv[0]}: no end after {timeout_s:g} s: {argv}") from error
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise ClusterError(f"{argv[0]}: exit code {done.returncode}: {said}")
        return done.stdout

    def squeue(self, *arguments: str) -> str:
        """Return what squeue prints."""
        return self.run("squeue", *arguments)

    def sbatch(self, *arguments: str) -> str:
        """Submit a job with sbatch's own arguments and return its id."""
        return self.run("sbatch", "--parsable", *arguments).strip().partition(";")[0]

    def job(self, job_id: str | int) -> dict[str, str]:
        """Return what scontrol tells of a job, by field; of an array, the first member's.

        Raises:
            ClusterError: Slurm does not know the job, any more or at all.
        """
        text = self.run("scontrol", "--oneliner", "show", "job", str(job_id)).splitlines()[0]
        return dict(re.findall(r"(?:^| )([A-Z][\w/:]*)=(.*?)(?= [A-Z][\w/:]*=|\s*$)", text))

    def wait(
        self, job_id: str | int, states: str | Collection[str], timeout_s: float = 60.0
    ) -> str:
        """Wait until every member of a job is in one of `states`, and return the first's.

        Raises:
            ClusterError: `timeout_s` has passed, or the job has ended in another state.
        """
        wanted = {states} if isinstance(states, str) else set(states)
        deadline = time.monotonic() + timeout_s
        while True:
            text = self.run("scontrol", "--oneliner", "show", "job", str(job_id))
            seen = re.findall(r" JobState=(\w+)", text)
            if wanted.issuperset(seen):
                return str(seen[0])
            if time.monotonic() > deadline or _FINAL.issuperset({*seen} - wanted):
                raise ClusterError(f"job {job_id}: expected {sorted(wanted)}, got {seen}:\n{text}")
            time.sleep(_POLL_S)

    def drain(self, timeout_s: float = _START_TIMEOUT_S) -> None:
        """Cancel every job, kill at once what it started, and wait until none is left.

        Raises:
            ClusterError: A job is still there after `timeout_s`.
        """

        def none_left() -> bool:
            jobs = set(self.squeue("-h", "-o", "%A").split())
            if jobs:
                with contextlib.suppress(ClusterError):  # one may end before scancel gets to it
                    self.run("scancel", *jobs)
                self._kill_jobs()
            return not jobs

        self._until(none_left, "no job is left", timeout_s)

    # Daemons

    def _write_files(self) -> None:
        layout = self._layout
        for folder in (layout.munge_dir, layout.state_dir, layout.spool_dir, layout.log_dir):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in (layout.munge_dir, layout.state_dir, layout.log_dir):
            folder.mkdir(parents=True)
        for node in self.node_names:
            (layout.spool_dir / node).mkdir(parents=True)
        # Not getpass: that believes $USER, and munge believes the kernel.
        user = pwd.getpwuid(os.geteuid()).pw_name
        ports = _free_ports(1 + self._shape.nodes)
        layout.conf.write_text(slurm_conf(layout, self._shape, user=user, ports=ports))
        (layout.root / "gres.conf").write_text(gres_conf(self._shape))

    def _start_keeper(self) -> None:
        argv = [sys.executable, "-m", f"{__package__}.keeper", str(self.root), str(os.getpid())]
        if self._owns_root:
            argv.append("--remove-root")
        self._keeper = subprocess.Popen(
            argv,
            cwd=_REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(_REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        leftovers.note_keeper(self._layout.keeper_file, self._keeper.pid)

    def _start_munge(self) -> None:
        folder = self._layout.munge_dir
        key = folder / "key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        self._spawn(
            "munged",
            "munged",
            "--foreground",
            "--force",  # a folder above that others cannot enter is well, for nobody else calls
            f"--socket={self._layout.munge_socket}",
            f"--key-file={key}",
            f"--pid-file={folder}/pid",
            f"--log-file={self._layout.log_dir}/munged.log",
            f"--seed-file={folder}/seed",
        )
        self._until(self._layout.munge_socket.is_socket, "munged listens")

    def _spawn(self, name: str, program: str, *arguments: str) -> None:
        path = packages.find(program)
        assert path is not None, "__init__ has looked"
        mark = {leftovers.MARK: str(self.root)}  # last: Slurm writes titles over what is first
        env = {"PATH": _DAEMON_PATH, "LANG": "C.UTF-8", **self.env, **mark}
        console = str(self._console(name))
        self._ask(do="spawn", name=name, argv=[path, *arguments], env=env, console=console)

    def _ask(self, **request: Any) -> Any:
        keeper = self._keeper
        if keeper is None or keeper.stdin is None or keeper.stdout is None:
            raise ClusterError(f"the cluster in {self.root} does not run")
        try:
            print(json.dumps(request), file=keeper.stdin, flush=True)
            return json.loads(keeper.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError) as error:
            raise ClusterError(f"the keeper of the cluster in {self.root} is gone") from error

    def _until(
        self, done: Callable[[], bool], what: str, timeout_s: float = _START_TIMEOUT_S
    ) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            self._fail_if_dead()
            if time.monotonic() > deadline:
                raise ClusterError(f"after {timeout_s:g} s, not yet: {what}\n{self._last_lines()}")
            time.sleep(_POLL_S)

    def _fail_if_dead(self) -> None:
        for name in self._started():
            code = self._ask(do="poll", name=name)
            if code is not None:
                raise ClusterError(f"{name} ended with code {code}:\n{self._last_lines(name)}")

    def _started(self) -> list[str]:
        names = ("munged", "slurmctld", *self.node_names)
        return [name for name in names if self._console(name).exists()]

    def _console(self, name: str) -> Path:
        return self._layout.log_dir / f"{name}.console"

    def _last_lines(self, *names: str) -> str:
        """The end of each daemon's log; the console is a daemon's log until it opened its own."""
        texts = []
        for name in names or self._started():
            log = self._layout.log_dir / f"{name}.log"
            source = log if log.exists() and log.stat().st_size else self._console(name)
            lines = source.read_text(errors="replace").splitlines()[-15:]
            texts.append("\n".join([f"--- {source}", *lines]))
        return "\n".join(texts)

    def _all_idle(self) -> bool:
        # Without a controller, ping says so at once; everything else first waits for one.
        if not self._answers():
            return False
        try:
            states = self.run("sinfo", "-h", "-N", "-p", "debug", "-o", "%T").split()
        except ClusterError:
            return False
        return states == ["idle"] * self._shape.nodes

    def _kill_jobs(self) -> None:
        """Kill what jobs have started, so that nobody waits for those that heed no TERM."""
        if self._keeper is not None:
            ours = processes.descendants([self._keeper.pid])
            processes.end(pid for pid in ours if processes.name(pid) not in _DAEMONS)

    def _resume(self) -> None:
        """Bring nodes back that a test drained or that Slurm took out."""
        for line in self.run("sinfo", "-h", "-N", "-p", "debug", "-o", "%N %T").splitlines():
            name, state = line.split()
            if state.startswith(("down", "drain")):
                self.run("scontrol", "update", f"nodename={name}", "state=resume")

    def _answers(self) -> bool:
        try:
            return " UP" in self.run("scontrol", "ping")
        except ClusterError:
            return False


def _checked(root: Path) -> Path:
    """Return the root when Slurm's configuration and unix sockets can carry it."""
    if len(str(root)) > _MAX_ROOT_LENGTH or not _SAFE_ROOT.fullmatch(str(root)):
        raise ClusterError(
            f"root: got {str(root)!r}, expected an absolute path of at most {_MAX_ROOT_LENGTH} "
            "characters, each a letter, digit or one of ./_+-"
        )
    return root


def _free_ports(count: int) -> tuple[int, ...]:
    """Return ports that nothing listens on; all are held at once, so that no two are the same."""
    with contextlib.ExitStack() as held:
        found: list[int] = []
        for port in random.Random().sample(_PORTS, len(_PORTS)):
            if len(found) == count:
                break
            candidate = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                candidate.bind(("", port))
                found.append(port)
    return tuple(found)
