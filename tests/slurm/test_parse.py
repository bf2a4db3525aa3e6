"""What Slurm prints is read the same from 22.05 (captured), 23.11 and 24.05 (written by hand)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionrun.slurm import parse, parse_json, records, words
from fusionrun.slurm.parse import QueuedJob
from fusionrun.slurm.records import Node, Partition

OUTPUTS = Path(__file__).parent / "outputs"
VERSIONS = ("22.05", "23.11", "24.05")
NEWER = ("23.11", "24.05")
NOW = 1795395600.0  # what the hand-written files count from


def output(version: str, name: str) -> str:
    return (OUTPUTS / version / name).read_text(encoding="utf-8")


def only(jobs: list[QueuedJob], handle: str) -> QueuedJob:
    (found,) = (job for job in jobs if job.handle == handle)
    return found


def test_a_running_job_is_read_whole() -> None:
    assert only(parse.queue(output("22.05", "squeue.txt")), "4") == QueuedJob(
        id="4",
        array_index=None,
        state="RUNNING",
        reason="",
        run_id="digits-1a2b3c4d-s0",
        time_left_s=299,
        start="2026-11-23T01:11:08",
        nodes="n1",
        restarts=0,
    )


def test_a_line_break_in_a_comment_makes_no_job() -> None:
    jobs = parse.queue(output("22.05", "squeue.txt"))
    assert [job.id for job in jobs].count("6") == 1
    assert not {"98", "99"} & {job.id for job in jobs}


def test_each_task_of_an_array_is_a_job_under_the_id_of_the_array() -> None:
    jobs = [job for job in parse.queue(output("22.05", "squeue.txt")) if job.id == "5"]
    assert sorted(job.handle for job in jobs) == [f"5_{i}" for i in range(6)]
    assert {job.run_id for job in jobs} == {"sweep-1a2b3c4d-s0"}


def test_a_waiting_job_says_why_and_from_when() -> None:
    job = only(parse.queue(output("22.05", "squeue.txt")), "6")
    assert (job.state, job.reason, job.start) == ("PENDING", "BeginTime", "2026-11-23T02:11:07")
    assert job.time_left_s == 26 * 3600


@pytest.mark.parametrize(
    ("job_id", "ended"),
    [("1", ("FAILED", 9, 0)), ("2", ("FAILED", 0, 9)), ("4", ("RUNNING", None, 0))],
)
def test_an_ended_job_has_its_exit_code_and_signal(job_id: str, ended: tuple[object, ...]) -> None:
    job = only(parse.queue(output("22.05", "squeue-ended.txt")), job_id)
    assert (job.state, job.exit_code, job.signal) == ended


@pytest.mark.parametrize("version", NEWER)
def test_newer_text_reads_as_the_old(version: str) -> None:
    job = only(parse.queue(output(version, "squeue.txt")), "4")
    assert (job.state, job.run_id, job.restarts) == ("RUNNING", "digits-1a2b3c4d-s0", 2)
    assert (job.time_left_s, job.nodes) == (240, "gpu01")


@pytest.mark.parametrize(
    ("left", "seconds"), [("364-23:59:12", None), ("UNLIMITED", None), ("10-00:00:00", 864_000)]
)
def test_what_is_left_of_slurms_year_is_no_limit(left: str, seconds: int | None) -> None:
    line = f"7|N/A|RUNNING|0|{left}|2026-11-23T00:53:01|0|n1|None|fusionrun:run|"
    (job,) = parse.queue(line)
    assert job.time_left_s == seconds


def test_exit_codes_in_pairs_are_read_too() -> None:
    jobs = parse.queue(output("24.05", "squeue.txt"))
    assert (only(jobs, "1").exit_code, only(jobs, "1").signal) == (9, 0)
    assert (only(jobs, "2").exit_code, only(jobs, "2").signal) == (0, 125)


def test_a_reason_in_a_whole_sentence_stays_whole() -> None:
    reason = only(parse.queue(output("24.05", "squeue.txt")), "8").reason
    assert reason == "(Nodes required for job are DOWN, DRAINED or reserved)"


@pytest.mark.parametrize("version", VERSIONS)
def test_json_of_every_version_gives_the_same_running_job(version: str) -> None:
    job = only(parse_json.queue(output(version, "squeue.json"), now=NOW), "4")
    assert (job.state, job.run_id, job.reason) == ("RUNNING", "digits-1a2b3c4d-s0", "")
    assert job.start is not None
    assert job.time_left_s is not None


@pytest.mark.parametrize("version", VERSIONS)
def test_json_of_every_version_gives_exit_codes(version: str) -> None:
    job = only(parse_json.queue(output(version, "squeue.json"), now=NOW), "1")
    assert (job.state, job.exit_code, job.signal) == ("FAILED", 9, 0)


@pytest.mark.parametrize("version", VERSIONS)
def test_json_of_every_version_gives_the_signal_that_ended_a_job(version: str) -> None:
    assert only(parse_json.queue(output(version, "squeue.json"), now=NOW), "2").signal == 9


@pytest.mark.parametrize(("version", "waiting"), [("22.05", 4), ("23.11", 2), ("24.05", 2)])
def test_json_expands_the_tasks_that_wait(version: str, waiting: int) -> None:
    jobs = parse_json.queue(output(version, "squeue.json"), now=NOW)
    tasks = [job for job in jobs if job.id == "5" and job.state == "PENDING"]
    assert [job.array_index for job in tasks] == list(range(2, 2 + waiting))


@pytest.mark.parametrize("version", NEWER)
def test_json_counts_the_time_left_from_now(version: str) -> None:
    assert only(parse_json.queue(output(version, "squeue.json"), now=NOW), "4").time_left_s == 240


@pytest.mark.parametrize("version", NEWER)
def test_a_job_that_is_still_ending_is_alive_in_json_too(version: str) -> None:
    job = only(parse_json.queue(output(version, "squeue.json"), now=NOW), "6")
    assert (job.state, job.is_living) == ("COMPLETING", True)


@pytest.mark.parametrize("version", NEWER)
def test_json_can_be_held_to_one_user(version: str) -> None:
    jobs = parse_json.queue(output(version, "squeue.json"), now=NOW, user_id=1001)
    assert [job.id for job in jobs] == ["7"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"jobs": null}'])
def test_json_that_is_no_queue_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting|expected an object with a list 'jobs'"):
        parse_json.queue(text, now=NOW)


def test_array_strings_may_have_steps_and_a_throttle() -> None:
    assert parse_json._indices("0-2,7,10-20:5%2") == [0, 1, 2, 7, 10, 15, 20]


def test_a_job_record_gives_fields_by_slurms_names() -> None:
    (job,) = records.records(output("22.05", "failed.txt"))
    assert (job["JobState"], job["Reason"], job["ExitCode"]) == ("FAILED", "NonZeroExitCode", "9:0")


def test_a_job_cannot_fake_its_state_by_its_name_or_comment() -> None:
    (job,) = records.records(output("22.05", "hostile.txt"))
    assert (job["JobState"], job["Reason"]) == ("PENDING", "JobHeldUser")
    assert job["JobName"] == "x JobState=FAILED Reason=lie"
    assert job["Comment"] == "JobState=FAILED"


def test_the_records_of_an_array_are_told_apart() -> None:
    found = records.records(output("22.05", "array.txt"))
    assert [job["ArrayTaskId"] for job in found] == ["2-5%2", "1", "0"]
    assert {job["ArrayJobId"] for job in found} == {"5"}


@pytest.mark.parametrize("version", NEWER)
def test_paths_with_spaces_and_signs_stay_whole(version: str) -> None:
    (job,) = records.records(output(version, "job.txt"))
    assert job["WorkDir"] == "/home/ann/runs/my run = 1"
    assert (job["JobState"], job["Restarts"], job["ExitCode"]) == ("TIMEOUT", "2", "0:15")
    assert job["TresPerNode"] == "gres/gpu:1"


def test_a_drained_node_says_why() -> None:
    first, second = records.nodes(output("22.05", "nodes.txt"))
    assert first == Node(
        "n1", "127.0.0.1", "ALLOCATED", ("debug", "short"), 2, 8000, ("gpu:1",), ""
    )
    assert (second.state, second.is_out_of_service) == ("MIXED+DRAIN", True)
    assert second.reason == "fan = broken, call Ann [root@2026-11-23T01:11:09]"


@pytest.mark.parametrize("version", NEWER)
def test_nodes_of_newer_versions(version: str) -> None:
    gpu01, gpu02, cloud = records.nodes(output(version, "nodes.txt"))
    assert gpu01.gres == ("gpu:a100:4(S:0-1)", "nvme:1")
    assert gpu02.gres == ("gpu:a100:2(S:0,1)",)
    assert [n.is_out_of_service for n in (gpu01, gpu02, cloud)] == [False, True, False]
    assert (gpu01.address, gpu01.num_cpus, gpu01.memory_mb) == ("10.0.0.11", 64, 515000)


def test_partitions_have_their_limits() -> None:
    assert records.partitions(output("22.05", "partitions.txt")) == [
        Partition("debug", True, True, None, None, 2),
        Partition("short", False, True, 300, None, 2),
    ]


@pytest.mark.parametrize("version", NEWER)
def test_partitions_of_newer_versions(version: str) -> None:
    gpu, short = records.partitions(output(version, "partitions.txt"))
    assert gpu == Partition("gpu", True, True, 172800, 3600, 2, "REQUEUE")
    assert (short.max_time_s, short.is_up) == (None, False)


def test_the_configuration_is_names_and_values() -> None:
    settings = records.config(output("22.05", "config.txt"))
    assert settings["SelectTypeParameters"] == "CR_CORE"
    assert settings["AuthInfo"] == "socket=/var/lib/cluster/munge/socket,cred_expire=10"
    assert settings["Epilog"] == ""
    assert settings["SlurmctldHost[0]"] == "head(127.0.0.1)"


def test_the_configuration_goes_past_its_headings() -> None:
    settings = records.config(output("24.05", "config.txt"))
    assert settings["SlurmctldHost[1]"] == "head2(10.0.0.2)"
    assert settings["ConstrainRAMSpace"] == "yes"
    assert settings["TaskPluginParam"] == ""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("4:58", 298),
        ("1:00:00", 3600),
        ("364-23:59:58", 31535998),
        ("0:00", 0),
        ("00:05:00", 300),
        ("UNLIMITED", None),
        ("NOT_SET", None),
        ("INVALID", None),
        ("N/A", None),
        ("", None),
    ],
)
def test_times_that_slurm_prints(text: str, seconds: int | None) -> None:
    assert parse.duration_s(text) == seconds


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("slurm 22.05.8", (22, 5, 8)),
        ("slurm-wlm 22.05.8\n", (22, 5, 8)),
        ("slurm 24.11.0-0rc1", (24, 11, 0)),
        ("slurm 25.05", (25, 5, 0)),
    ],
)
def test_versions(text: str, version: tuple[int, int, int]) -> None:
    assert parse.version(text) == version


def test_what_is_no_version_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a version such as .*, got 'nothing'"):
        parse.version("nothing")


@pytest.mark.parametrize(
    ("printed", "job_id"),
    [
        ("12\n", "12"),
        ("12;north\n", "12"),
        ("Welcome, 7 jobs wait\n12\n", "12"),
        ("Submitted batch job 12\n", "12"),
        ("", None),
        ("queued\n", None),
    ],
)
def test_the_id_in_what_sbatch_prints(printed: str, job_id: str | None) -> None:
    assert parse.submitted_id(printed) == job_id


@pytest.mark.parametrize(
    ("comment", "run_id"),
    [
        ("fusionrun:a-1-s0", "a-1-s0"),
        ("fusionrun:a-1-s0 its true name", "a-1-s0"),
        ("fusionrun:", None),
        ("fusionrun", None),
        ("my fusionrun:a-1-s0", None),
        ("(null)", None),
        ("", None),
    ],
)
def test_a_comment_names_a_run_or_none(comment: str, run_id: str | None) -> None:
    assert parse.run_id_of(comment) == run_id


@pytest.mark.parametrize(
    ("gres", "parts"),
    [
        ("gpu:4", ("gpu", "", 4)),
        ("gpu:a100:4(S:0-1)", ("gpu", "a100", 4)),
        ("gpu", ("gpu", "", 1)),
        ("gpu:a100", ("gpu", "a100", 1)),
        ("gpu:1g.5gb:7", ("gpu", "1g.5gb", 7)),
    ],
)
def test_generic_resources(gres: str, parts: tuple[str, str, int]) -> None:
    assert records.gres_count(gres) == parts


def test_the_verdict_has_the_start_and_the_words() -> None:
    said = words.tidy(
        "sbatch: Job 9 to start at 2026-11-23T00:58:04 using 1 processors on nodes n2\n"
    )
    found = parse.verdict(0, said)
    assert (found.accepted, found.start) == (True, "2026-11-23T00:58:04")
    assert found.words.startswith("Job 9 to start at")


def test_a_start_in_the_year_8151_is_nobody_knows_when() -> None:
    assert parse.verdict(0, "Job 9 to start at 8151-06-28T04:03:04 using 1").start is None


def test_a_refusal_is_tidy() -> None:
    said = words.tidy(
        "sbatch: error: invalid partition specified: nope\n"
        "sbatch: error: Batch job submission failed: Invalid partition name specified\n\n"
    )
    assert said.splitlines() == [
        "invalid partition specified: nope",
        "Batch job submission failed: Invalid partition name specified",
    ]


@given(st.text())
def test_no_text_makes_the_parsers_fail(text: str) -> None:
    assert all(job.id.isdecimal() for job in parse.queue(text))
    records.records(text)
    records.config(text)
    records.nodes(text)
    records.partitions(text)
    parse.submitted_id(text)
    parse.run_id_of(text)
    words.explained("x", words.tidy(text))


@given(st.text(alphabet=st.characters(exclude_characters="\n")))
def test_whatever_follows_the_run_in_a_comment_the_run_is_found(rest: str) -> None:
    line = f"7|N/A|RUNNING|0|4:00|N/A|0|n1|None|fusionrun:a-1-s0 {rest}|\n"
    (job,) = parse.queue(line)
    assert job.run_id == "a-1-s0"
