"""Those who are notified: a web server and a mail server, on loopback."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword

USER, PASSWORD = "fractal", "of the mail server"


class Hook:
    """A web server, and what was posted to it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.posted: list[dict[str, Any]] = []


@contextmanager
def web_server() -> Iterator[Hook]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            hook.posted.append(json.loads(body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hook = Hook(f"http://127.0.0.1:{server.server_port}/hook?token=secret")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hook
        server.shutdown()


class Mailbox:
    """A mail server that wants a login, and the mails that it took, with whom they were for."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.mails: list[tuple[list[str], EmailMessage]] = []

    async def handle_DATA(self, server: object, session: object, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append((list(envelope.rcpt_tos), mail))
        return "250 OK"


def _authenticate(*arguments: object) -> AuthResult:
    (login,) = (each for each in arguments if isinstance(each, LoginPassword))
    good = (login.login.decode(), login.password.decode()) == (USER, PASSWORD)
    return AuthResult(success=good, handled=False)  # the server answers


@contextmanager
def mail_server(
    port: int, security: str = "none", context: ssl.SSLContext | None = None
) -> Iterator[Mailbox]:
    mailbox = Mailbox(port)
    controller = Controller(
        mailbox,
        hostname="127.0.0.1",
        port=port,
        ssl_context=context if security == "ssl" else None,
        tls_context=context if security == "starttls" else None,
        require_starttls=security == "starttls",
        auth_require_tls=security == "starttls",
        auth_required=True,
        authenticator=_authenticate,
    )
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()
