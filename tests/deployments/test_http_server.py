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


def received(connection: socket.socket) -> bytes:
    """What the server sends before it closes the connection."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


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


def test_a_head_that_comes_in_pieces_is_refused_when_it_is_huge(connection: socket.socket) -> None:
    connection.sendall(b"GET /api/alive/ HTTP/1.1\r\nHost: x\r\n")
    connection.sendall(b"a: b\r\n" * 4000)
    assert b" 400 " in received(connection)


def test_a_huge_head_is_refused(connection: socket.socket) -> None:
    connection.sendall(b"GET /api/alive/ HTTP/1.1\r\nHost: x\r\nx: " + b"a" * 200_000)
    assert b" 400 " in connection.recv(1000)


@pytest.mark.parametrize(
    ("begin", "piece"),
    [(b"0\r\n", b"a: b\r\n"), (b"1;a=", b"aaaaaa")],
    ids=["trailers", "extension of a chunk"],
)
def test_what_is_beside_the_content_of_a_body_is_received_up_to_a_limit(
    connection: socket.socket, begin: bytes, piece: bytes
) -> None:
    head = b"POST /api/alive/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.sendall(head + begin)
    assert b" 405 " in connection.recv(1000)
    connection.sendall(piece * 4000)
    assert b"too long" in received(connection)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /api/alive/ HTTP/1.1\r\n",
        b"GET /api/alive/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n",
        b"GET /api/alive/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n",
        b"GET /api/alive/ HTTP/1.1\r\nHost: x\r\nName : x\r\n",
        b"GET /api/alive/ HTTP/1.1\r\nHost: x\r\nName: x\r\n folded\r\n",
        b"GET /api/alive/ HTTP/1.1\nHost: x\n",
    ],
    ids=["no host", "two", "lengths", "both", "coding", "space", "fold", "line feed"],
)
def test_a_head_that_can_be_understood_in_two_ways_is_refused(
    connection: socket.socket, head: bytes
) -> None:
    connection.sendall(head + b"\r\n")
    assert b" 400 " in connection.recv(1000)


def test_requests_that_arrive_together_are_answered_in_turn(connection: socket.socket) -> None:
    one = b"GET /api/%s/ HTTP/1.1\r\nHost: x\r\n"
    connection.sendall(one % b"alive" + b"\r\n" + one % b"nothing" + b"Connection: close\r\n\r\n")
    first, second = received(connection).split(b"HTTP/1.1 ")[1:]
    assert (first[:3], second[:3]) == (b"200", b"404")


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
