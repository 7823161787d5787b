"""The REST API at the level of connections: of those who do not speak, or not to the end."""

import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from deployments import http_server
from fractal_models.settings import Settings
from tests.api.world import serving

PATIENCE_SECONDS = 0.5


@pytest.fixture(scope="module")
def url(settings: Settings) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_server, "HEAD_SECONDS", PATIENCE_SECONDS)
        patient = httpx.HTTPTransport(retries=5)
        with serving(settings) as url, httpx.Client(transport=patient) as client:
            assert client.get(f"{url}/api/alive/").status_code == 200
            yield url


@pytest.fixture
def connection(url: str) -> Iterator[socket.socket]:
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connected:
        yield connected


def closed(connection: socket.socket) -> bool:
    """Whether the server closes it; what it sends before that is left aside."""
    try:
        while connection.recv(65_536):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


def cut_off(connection: socket.socket, piece: bytes) -> bool:
    """Whether the server ends a connection on which a piece is sent now and then."""
    try:
        for _ in range(100):
            connection.sendall(piece)
            time.sleep(PATIENCE_SECONDS / 5)
    except OSError:  # a reset, or a broken pipe
        return True
    return False


def test_a_connection_on_which_nothing_is_said_is_closed(connection: socket.socket) -> None:
    assert closed(connection)


def test_a_head_that_does_not_end_is_not_waited_for(connection: socket.socket) -> None:
    connection.sendall(b"GET /api/alive/ HTTP/1.1\r\nHost: x\r\n")
    assert cut_off(connection, b"a: b\r\n")


def test_a_huge_head_is_refused(connection: socket.socket) -> None:
    connection.sendall(b"GET /api/alive/ HTTP/1.1\r\nHost: x\r\nx: " + b"a" * 200_000)
    assert b" 400 " in connection.recv(1000)


def test_an_upgrade_to_a_websocket_is_none(url: str) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "x"}
    answer = httpx.get(f"{url}/api/alive/", headers=headers)
    assert answer.status_code == 200


def test_a_refused_body_that_does_not_end_is_not_received_for_ever(
    connection: socket.socket,
) -> None:
    head = b"POST /api/v2/project/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    connection.sendall(head)
    assert b" 401 " in connection.recv(1000)
    assert cut_off(connection, b"a")


def test_a_connection_is_used_again_and_again(url: str) -> None:
    with httpx.Client(base_url=url) as client:
        for _ in range(4):
            time.sleep(PATIENCE_SECONDS / 3)
            assert client.get("/api/alive/").status_code == 200
