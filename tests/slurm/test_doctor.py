"""`fusionrun doctor` says what a machine and a cluster offer, with a cluster and without."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from fusionrun import doctor
from fusionrun.cli.doctor import doctor as command
from fusionrun.cli.options import known_errors
from fusionrun.slurm import records
from fusionrun.slurm.client import Slurm
from tests.slurm_cluster import Cluster

OUTPUTS = Path(__file__).parent / "outputs"


def call(*arguments: str, env: dict[str, str]) -> Result:
    """Run the command with an environment that has only these variables of Slurm's."""
    app = typer.Typer()
    app.command()(known_errors(command))
    return CliRunner().invoke(app, list(arguments), env={"SLURM_CONF": None, **env})


def finding(report: doctor.Report, name: str) -> doctor.Finding:
    (found,) = (finding for finding in report.findings if finding.name == name)
    return found


def recorded(version: str) -> dict[str, doctor.Finding]:
    """Findings on a recorded configuration, by name."""
    settings = records.config((OUTPUTS / version / "config.txt").read_text())
    nodes = records.nodes((OUTPUTS / version / "nodes.txt").read_text())
    found = doctor.slurm_findings((24, 5, 4), settings, nodes)
    return {finding.name: finding for finding in found}


def test_a_real_cluster_is_described(slurm_env: dict[str, str], tmp_path: Path) -> None:
    report = doctor.examine(Slurm(slurm_env), tmp_path / "runs")
    assert report.reachable
    assert finding(report, "Slurm").value.endswith("reachable")
    assert finding(report, "GPUs").value == "up to 1 a node"
    assert finding(report, "short").value == "5 min at most, 2 nodes, 2 CPUs, 8 GB, gpu:1"
    assert finding(report, "debug (default)").value.startswith("no time limit, 2 nodes")
    assert [partition.name for partition in report.partitions] == ["debug", "short"]


def test_every_finding_says_what_it_means(slurm_env: dict[str, str], tmp_path: Path) -> None:
    report = doctor.examine(Slurm(slurm_env), tmp_path)
    assert all(finding.value and finding.meaning for finding in report.findings)


def test_the_command_prints_the_cluster(slurm_env: dict[str, str]) -> None:
    result = call(env={"SLURM_CONF": slurm_env["SLURM_CONF"]})
    assert result.exit_code == 0, result.output
    for heading in ("this machine", "the cluster", "partitions"):
        assert f"\n{heading}\n" in f"\n{result.output}"
    assert "slurm.gpus_per_node: 1" in result.output


def test_no_line_is_wider_than_a_screen(slurm_env: dict[str, str]) -> None:
    result = call("--runs", "runs", env={"SLURM_CONF": slurm_env["SLURM_CONF"]})
    below = [line for line in result.output.splitlines() if line.startswith("   ")]
    assert max(map(len, below)) <= 100


def test_json_has_findings_and_partitions(slurm_env: dict[str, str]) -> None:
    result = call("--json", env={"SLURM_CONF": slurm_env["SLURM_CONF"]})
    content = json.loads(result.output)
    assert content["reachable"] is True
    assert content["partitions"][1]["max_time_s"] == 300
    assert {"about", "name", "value", "meaning", "level"} == set(content["findings"][0])


def test_without_slurm_the_machine_is_described(tmp_path: Path) -> None:
    result = call("--runs", str(tmp_path), env={"PATH": str(tmp_path)})
    assert result.exit_code == 0, result.output
    assert "--executor local" in " ".join(result.output.split())


def test_without_slurm_json_says_that_there_is_none(tmp_path: Path) -> None:
    result = call("--json", env={"PATH": str(tmp_path)})
    assert json.loads(result.output)["reachable"] is None


def test_a_scheduler_out_of_reach_ends_with_4_and_its_words(cluster: Cluster) -> None:
    result = call(env={"SLURM_CONF": "/none/slurm.conf"})
    assert result.exit_code == 4
    assert "SLURM_CONF=/none/slurm.conf: no such file" in " ".join(result.output.split())


def test_the_accelerators_flag_follows_the_types_there_are() -> None:
    found = recorded("24.05")["GPUs"]
    assert found.value == "up to 4 a node: a100"
    assert found.meaning == "slurm.gpus_per_node: 4 or 'a100:4' (never with slurm.gres)"


def test_without_cons_tres_only_gres_works() -> None:
    nodes = records.nodes((OUTPUTS / "22.05" / "nodes.txt").read_text())
    settings = {"GresTypes": "gpu", "SelectType": "select/linear"}
    found = {f.name: f for f in doctor.slurm_findings((22, 5, 8), settings, nodes)}["GPUs"]
    assert found.meaning.startswith("slurm.gres: 'gpu:1'; slurm.gpus_per_node needs")


def test_a_cluster_without_gpus_says_to_ask_for_none() -> None:
    found = {f.name: f for f in doctor.slurm_findings((22, 5, 8), {}, [])}["GPUs"]
    assert (found.value, found.meaning) == (
        "none",
        "leave slurm.gpus_per_node and slurm.gres out",
    )


@pytest.mark.parametrize(
    ("name", "plain", "strict"),
    [
        ("memory", "not shared out", "without slurm.mem a run gets 4000 MB a CPU"),
        ("accounting", "the run directory alone", "sacct remembers"),
        ("requeue", "goes on under the same job id", "a job must ask for it"),
        ("proctrack", "may outlive its job", "ends with it"),
        ("EnforcePartLimits", "waits for ever", "is refused"),
    ],
)
def test_settings_mean_what_they_do(name: str, plain: str, strict: str) -> None:
    assert plain in recorded("22.05")[name].meaning
    assert strict in recorded("24.05")[name].meaning


def test_memory_without_a_default_takes_a_whole_node() -> None:
    settings = {"SelectTypeParameters": "CR_CORE_MEMORY", "DefMemPerNode": "UNLIMITED"}
    found = {f.name: f for f in doctor.slurm_findings((22, 5, 8), settings, [])}["memory"]
    assert "takes a whole node's" in found.meaning


def test_a_partition_tells_of_lost_nodes_and_preemption() -> None:
    nodes = records.nodes((OUTPUTS / "24.05" / "nodes.txt").read_text())
    gpu, short = records.partitions((OUTPUTS / "24.05" / "partitions.txt").read_text())
    found = doctor.partition_finding(gpu, nodes)
    assert (
        found.value == "2 d at most, 2 nodes, 64 CPUs, 250-503 GB, gpu:a100:4, nvme:1, gpu:a100:2"
    )
    assert found.meaning == (
        "without slurm.time a run gets 1 h; 1 of 2 nodes out of service; "
        "a run may have to make room for others (requeue)"
    )
    assert doctor.partition_finding(short, nodes).meaning == "starts no jobs now"


def test_a_runs_directory_that_cannot_be_made_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    report = doctor.examine(Slurm({"PATH": ""}), tmp_path / "file" / "runs")
    found = finding(report, "runs directory")
    assert (found.level, "no run can be made there" in found.meaning) == ("problem", True)


def test_looking_leaves_nothing_behind(tmp_path: Path) -> None:
    doctor.examine(Slurm({"PATH": ""}), tmp_path / "runs")
    assert list(tmp_path.iterdir()) == []


def test_the_file_system_is_that_of_the_nearest_mount() -> None:
    mounts = "/dev/sda / ext4 rw\nserver:/x /srv nfs4 rw\ntmpfs /srv/my\\040disk tmpfs rw\n"
    assert doctor.filesystem_of(Path("/srv/runs"), mounts) == "nfs4"
    assert doctor.filesystem_of(Path("/srv/my disk/runs"), mounts) == "tmpfs"
    assert doctor.filesystem_of(Path("/home"), mounts) == "ext4"
    assert doctor.filesystem_of(Path("/home"), "") == "a file system of unknown kind"


def test_devices_are_counted_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\n"
        "echo 'GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-1)'\n"
        "echo '  MIG 1g.5gb Device 0: (UUID: MIG-1)'\n"
        "echo 'GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-2)'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    report = doctor.examine(Slurm({"PATH": ""}), tmp_path)
    assert finding(report, "devices").value == "2 × NVIDIA A100-SXM4-40GB"


def test_doctor_imports_neither_torch_nor_numpy(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom fusionrun.doctor import examine\n"
        "from fusionrun.slurm.client import Slurm\n"
        "report = examine(Slurm(), Path('runs'))\n"
        "print([n for n in ('torch', 'numpy') if n in sys.modules],\n"
        "      [f.value for f in report.findings if f.name == 'torch'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    from importlib.metadata import version

    assert done.stdout == f"[] ['{version('torch')}']\n"


def test_a_machine_without_torch_may_still_submit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = doctor._torch()
    assert (found.value, found.level) == ("not found", "note")
    assert "submit" in found.meaning
