"""The cluster of the tests: it runs jobs, is reached in both ways, and outlives its parts."""

import time

import pytest

from tests.cluster import Cluster, ClusterError
from tests.lab import eventually

AS_USER = ("sudo", "-n", "-u", "user01")
SCRIPT = "#!/bin/sh\nwhoami\n"
SLEEP = "#!/bin/sh\nsleep 60\n"


async def submitted(cluster: Cluster, script: str, *options: str) -> str:
    """The number of a job that the server submits for the user."""
    command = (*AS_USER, "sbatch", "--parsable", f"--chdir={cluster.user_folder}", *options)
    return (await cluster.run(*command, user=cluster.server_user, stdin=script)).strip()


async def ssh(cluster: Cluster, host_key: str, *command: str) -> str:
    """What a command prints when the server logs in and knows this line of the host."""
    known_hosts = cluster.root / "known_hosts"
    known_hosts.write_text(host_key)
    known_hosts.chmod(0o644)
    options = [
        *("-F", "none", "-p", str(cluster.ssh_port), "-i", str(cluster.key_path)),
        *("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"),
        *("-o", f"UserKnownHostsFile={known_hosts}"),
    ]
    login = f"{cluster.user}@127.0.0.1"
    return await cluster.run("ssh", *options, login, *command, user=cluster.server_user)


async def test_an_array_runs_as_the_user_for_whom_the_server_submits_it(cluster: Cluster) -> None:
    await submitted(cluster, SCRIPT, "--array=0-3", "--output=array-%a")
    await cluster.wait_idle()
    outputs = sorted(cluster.user_folder.glob("array-*"))
    assert [output.read_text() for output in outputs] == ["user01\n"] * 4
    assert {output.owner() for output in outputs} == {"user01"}


async def test_the_server_may_run_few_commands_for_the_user(cluster: Cluster) -> None:
    command = ("python3", "-c", "import getpass; print(getpass.getuser())")
    assert await cluster.run(*AS_USER, *command, user=cluster.server_user) == "user01\n"
    with pytest.raises(ClusterError, match="a password is required"):
        await cluster.run(*AS_USER, "sh", "-c", "true", user=cluster.server_user)


async def test_the_server_logs_in_with_its_key_at_the_host_it_knows(cluster: Cluster) -> None:
    assert await ssh(cluster, cluster.host_key, "whoami") == "user01\n"
    with pytest.raises(ClusterError, match="Host key verification failed"):
        await ssh(cluster, "", "whoami")


async def test_sshd_takes_its_connections_with_it_and_comes_back(cluster: Cluster) -> None:
    cluster.kill("sshd")
    with pytest.raises(ClusterError, match="Connection refused"):
        await ssh(cluster, cluster.host_key, "whoami")
    await cluster.start("sshd")
    assert await ssh(cluster, cluster.host_key, "whoami") == "user01\n"


async def test_a_controller_that_is_killed_keeps_the_jobs_it_has_written_down(
    cluster: Cluster,
) -> None:
    before = time.time()
    held = await submitted(cluster, SCRIPT, "--hold", "--output=held")
    await written_down(cluster, before)
    cluster.kill("slurmctld")
    await cluster.start("slurmctld")
    assert (await cluster.job(held))["JobState"] == "PENDING"
    await cluster.run("scontrol", "release", held)
    await cluster.wait_idle()
    assert (await cluster.job(held))["JobState"] == "COMPLETED"


async def written_down(cluster: Cluster, since: float) -> None:
    """Wait until the controller has written down its jobs."""
    state = cluster.root / "state" / "job_state"

    async def changed() -> float:
        return state.stat().st_mtime

    await eventually(changed, lambda mtime: mtime > since)


async def test_a_restart_of_the_controller_ends_no_job_and_changes_its_options(
    cluster: Cluster,
) -> None:
    running = await submitted(cluster, SLEEP)
    await eventually(lambda: cluster.job(running), lambda job: job["JobState"] == "RUNNING")
    async with cluster.configured(MaxArraySize=3):
        assert (await cluster.job(running))["JobState"] == "RUNNING"
        with pytest.raises(ClusterError, match="Invalid job array specification"):
            await submitted(cluster, SCRIPT, "--array=0-3")
    await cluster.cancel_all()
    assert (await cluster.job(running))["JobState"] == "CANCELLED"


async def test_a_job_over_its_memory_is_killed(cluster: Cluster) -> None:
    script = "#!/usr/bin/python3\nimport time\nmuch = b'1' * 2**28\ntime.sleep(60)\n"
    hungry = await submitted(cluster, script, "--mem=50M", "--output=hungry")
    await cluster.wait_idle()
    job = await cluster.job(hungry)
    assert (job["JobState"], job["ExitCode"]) == ("FAILED", "0:9")
    assert "exceeded memory limit" in (cluster.user_folder / "hungry").read_text()
