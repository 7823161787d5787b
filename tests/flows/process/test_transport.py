"""Commands here, as another user, and by SSH: how they end, and what is said when they fail."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flows.process.transport import (
    AnswerError,
    CommandError,
    LocalTransport,
    SSHTransport,
    Transport,
    TransportError,
)
from tests.cluster import Cluster

ECHO = ("sh", "-c", "cat; echo of errors >&2; exit 3")


@pytest.fixture
def known_hosts(cluster: Cluster, tmp_path: Path) -> Path:
    path = tmp_path / "known_hosts"
    path.write_text(cluster.host_key)
    return path


@pytest.fixture(params=["here", "sudo", "ssh"])
async def transport(
    request: pytest.FixtureRequest, cluster: Cluster, known_hosts: Path
) -> AsyncIterator[Transport]:
    transport: Transport = {
        "here": LocalTransport(),
        "sudo": LocalTransport(cluster.user),
        "ssh": by_ssh(cluster, known_hosts),
    }[request.param]
    yield transport
    await transport.close()


def by_ssh(cluster: Cluster, known_hosts: Path, key: Path | None = None) -> SSHTransport:
    host = f"127.0.0.1:{cluster.ssh_port}"
    return SSHTransport(host, cluster.user, key or cluster.key_path, known_hosts)


async def test_a_command_gets_its_input_and_tells_how_it_ended(transport: Transport) -> None:
    ended = await transport.run(ECHO, b"of \x00 output\n")
    assert (ended.exit_code, ended.stdout, ended.stderr) == (3, b"of \x00 output\n", b"of errors\n")
    with pytest.raises(CommandError, match="sh failed: of errors"):
        ended.check()


async def test_words_are_not_read_by_a_shell(transport: Transport) -> None:
    words = ["a b", "$HOME", "it's", '"', "*", ";true"]
    ended = await transport.run(("printf", "%s\\n", *words))
    assert ended.stdout.decode().splitlines() == words


async def test_a_command_that_takes_too_long_is_given_up(transport: Transport) -> None:
    with pytest.raises(TransportError):
        await transport.run(("sleep", "30"), seconds=0.5)
    assert (await transport.run(("true",))).exit_code == 0


async def test_endless_output_ends_the_command(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.process.transport.LONGEST_ANSWER", 1 << 20)
    with pytest.raises(AnswerError, match="yes wrote more than 1 MiB"):
        await transport.run(("yes",))
    assert (await transport.run(("true",), b"not read" * 100_000)).exit_code == 0


async def test_settings_and_secrets_are_not_passed_on(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRACTAL_JWT_SECRET", "of the server")
    monkeypatch.setenv("SBATCH_PARTITION", "another")
    environment = (await transport.run(("env",))).stdout.decode()
    assert "FRACTAL_" not in environment
    assert "SBATCH_" not in environment


async def test_a_command_that_is_not_there_is_named() -> None:
    with pytest.raises(TransportError, match="no-such-command cannot be started here"):
        await LocalTransport().run(("no-such-command",))


async def test_a_host_with_another_key_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    unknown = tmp_path / "known_hosts"
    unknown.write_text("")
    with pytest.raises(TransportError, match=r"by SSH as user01 .*not trusted"):
        await by_ssh(cluster, unknown).run(("true",))


async def test_a_key_that_is_not_there_is_named(cluster: Cluster, known_hosts: Path) -> None:
    missing = known_hosts.with_name("no-key")
    with pytest.raises(TransportError, match="no-key"):
        await by_ssh(cluster, known_hosts, missing).run(("true",))


async def test_one_connection_is_kept_and_made_anew(cluster: Cluster, known_hosts: Path) -> None:
    transport = by_ssh(cluster, known_hosts)
    client = ("sh", "-c", "echo $SSH_CONNECTION")
    first, second = [(await transport.run(client)).stdout for _ in range(2)]
    assert first == second
    cluster.kill("sshd")
    with pytest.raises(TransportError):
        await transport.run(client)
    await cluster.start("sshd")
    assert (await transport.run(client)).stdout not in (b"", first)
    await transport.close()
