"""nginx in front of the API and of Prefect, configured as in `deployments/nginx`."""

import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from deployments.services import Service, answers, usable_port, wait_for
from deployments.stack import Stack
from tests.lab import Lab

CONFIGURATION = Path(__file__).parents[2] / "deployments" / "nginx" / "fractal.conf"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
API, PREFECT, WEB = "api.fractal.example.org", "prefect.example.org", "fractal.example.org"
SECONDS = 20.0

pytestmark = pytest.mark.skipif(
    NGINX is None or shutil.which("openssl") is None,
    reason="nginx or openssl is not installed (make servers)",
)


class Front:
    """The ports of a running nginx, and what its certificate is checked with."""

    def __init__(self, http: int, https: int, certificate: Path) -> None:
        self.http, self.https = http, https
        self.trust = ssl.create_default_context(cafile=str(certificate))

    def client(self, name: str) -> httpx.Client:
        """Somebody who asks a server of this name."""
        asked = httpx.Client(
            base_url=f"https://127.0.0.1:{self.https}", headers={"Host": name}, verify=self.trust
        )
        asked.event_hooks = {
            "request": [lambda request: request.extensions.update(sni_hostname=name)]
        }
        return asked


@pytest.fixture(scope="module")
def front(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("nginx")
    names = ",".join(f"DNS:{name}" for name in (API, PREFECT, WEB))
    certificate, key = folder / "fullchain.pem", folder / "privkey.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    about = ["-nodes", "-days", "2", "-subj", "/CN=tests", "-addext", f"subjectAltName={names}"]
    subprocess.run(
        [*make, *about, "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    http, https = (usable_port("127.0.0.1", 0, "") for _ in range(2))
    api, prefect = urlsplit(stack.api_url).port, urlsplit(stack.prefect_url).port
    here = {
        "/etc/ssl/fractal": str(folder),
        "listen 80;": f"listen 127.0.0.1:{http};",
        "listen 443 ssl;": f"listen 127.0.0.1:{https} ssl;",
        "http://127.0.0.1:8000": f"http://127.0.0.1:{api}",
        "http://127.0.0.1:4200": f"http://127.0.0.1:{prefect}",
    }
    text = CONFIGURATION.read_text()
    for documented, ours in here.items():
        assert documented in text
        text = text.replace(documented, ours)
    (folder / "fractal.conf").write_text(text)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {temporary} include {folder}/fractal.conf; }}\n"
    )
    command = [str(NGINX), "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    service = Service("nginx", command, {}, folder / "logs" / "nginx.log")
    service.start()
    try:
        wait_for(service, lambda: not answers(f"http://127.0.0.1:{http}/"), SECONDS, print)
        yield Front(http, https, certificate)
    finally:
        service.stop()


def test_people_are_sent_from_http_to_https(front: Front) -> None:
    asked = httpx.get(f"http://127.0.0.1:{front.http}/docs?a=b", headers={"Host": API})
    assert asked.status_code == 301
    assert asked.headers["location"] == f"https://{API}/docs?a=b"


def test_the_api_takes_logins_and_long_bodies_through_it(front: Front, lab: Lab) -> None:
    authorization = {"Authorization": lab.client.headers["Authorization"]}
    images = [{"zarr_url": f"{lab.zarr_dir}/plate/{n:06d}/{'x' * 40}"} for n in range(20_000)]
    with front.client(API) as client:
        project = client.post("/api/v2/project/", json={"name": "nginx"}, headers=authorization)
        assert project.status_code == 201
        made = client.post(
            f"/api/v2/project/{project.json()['id']}/dataset/import/",
            json={"name": "long", "zarr_dir": f"{lab.zarr_dir}/plate", "images": images},
            headers=authorization,
            timeout=60,
        )
        assert made.status_code == 201, made.text[:300]


def test_the_prefect_ui_and_its_websockets_are_reached(front: Front, stack: Stack) -> None:
    with front.client(PREFECT) as client:
        assert client.get("/api/flows/count").status_code in (401, 405)
        assert "<title>" in client.get("/").text
    raw = socket.create_connection(("127.0.0.1", front.https), timeout=SECONDS)
    with front.trust.wrap_socket(raw, server_hostname=PREFECT) as tls:
        tls.sendall(
            f"GET /api/events/in HTTP/1.1\r\nHost: {PREFECT}\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: prefect\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        assert re.match(rb"HTTP/1.1 101 ", tls.recv(1024))


def test_who_logs_in_again_and_again_is_told_to_wait(front: Front) -> None:
    with front.client(API) as client:
        given = {"username": "nobody@example.org", "password": "guessed"}
        told = [client.post("/auth/token/login/", data=given).status_code for _ in range(30)]
    assert {400, 429} == set(told)
    assert told.index(429) >= 20
