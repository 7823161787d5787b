"""A site on a cluster that is reached by SSH: commands end with whoever waits for them."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from prefect.logging import disable_run_logger

from flows.activities.site import RemoteSite
from flows.process.transport import CommandError, SSHTransport, TransportError
from tests.cluster import Cluster
from tests.lab import eventually


@pytest.fixture
async def site(cluster: Cluster) -> AsyncIterator[RemoteSite]:
    cluster.known_hosts.write_text(cluster.host_key)
    transport = SSHTransport(
        f"127.0.0.1:{cluster.ssh_port}", cluster.user, cluster.key_path, cluster.known_hosts
    )
    with disable_run_logger():
        yield RemoteSite(transport, "/usr/bin/python3")
    await transport.close()


async def sleepers(cluster: Cluster, seconds: int) -> str:
    """The processes that sleep for so long."""
    return await cluster.run("sh", "-c", f"pgrep -x -f 'sleep {seconds}' || true")


async def test_the_output_of_commands_is_told_and_the_first_failure_ends_them(
    site: RemoteSite,
) -> None:
    assert await site.shell(["echo one", "echo two >&2"]) == [
        "+ echo one",
        "one",
        "+ echo two",
        "two",
    ]
    with pytest.raises(CommandError, match="no such thing"):
        await site.shell(["echo no such thing", "false", "echo never"])


async def test_commands_end_when_they_are_cancelled(site: RemoteSite, cluster: Cluster) -> None:
    working = asyncio.create_task(site.shell(["sleep 1001"]))
    await eventually(lambda: sleepers(cluster, 1001), bool)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert await sleepers(cluster, 1001) == ""


async def test_commands_end_when_the_connection_is_cut(site: RemoteSite, cluster: Cluster) -> None:
    working = asyncio.create_task(site.shell(["sleep 1002"]))
    await eventually(lambda: sleepers(cluster, 1002), bool)
    cluster.kill("sshd")
    with pytest.raises(TransportError):
        await working
    await eventually(lambda: sleepers(cluster, 1002), lambda found: not found)
    await cluster.start("sshd")
    assert await site.output("id", "-un") == cluster.user


async def test_the_job_of_a_command_ends_with_it(site: RemoteSite, cluster: Cluster) -> None:
    working = asyncio.create_task(
        site.shell(["srun --partition=main --mem=50M sh -c 'sleep 1003'"])
    )
    await eventually(lambda: sleepers(cluster, 1003), bool)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    await eventually(lambda: sleepers(cluster, 1003), lambda found: not found)
    await cluster.wait_idle()
