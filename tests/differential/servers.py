"""This API and the reference, asked the same things at the same time."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, TypeVar

import httpx

Result = TypeVar("Result")

_NEW_CONNECTIONS = httpx.Limits(max_keepalive_connections=0)
DIRECTORY = "/data/differential"  # the project directory of everybody, on both servers


class Id(str):
    """Stands in a request for the id of something of this kind, which differs between servers."""

    def __repr__(self) -> str:
        return f"<{self}>"


class Fresh(str):
    """Stands in a request for a name that nothing has yet; where it has an @, for an email."""

    def __repr__(self) -> str:
        return f"<{self}>"


@dataclass(frozen=True)
class Form:
    """A form, with texts, and files by name."""

    fields: dict[str, Any]
    files: dict[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Raw:
    """A body as it is sent, with its content type."""

    text: str
    content_type: str = "application/json"


class Echo:
    """The body that a GET of the same path answers, on each server its own."""

    def __repr__(self) -> str:
        return "<what GET answers>"


@dataclass(frozen=True)
class Request:
    """A request by a person ("admin", "owner", "stranger", "nobody"); `body`: JSON, a `Form`, a
    `Raw`, or None for none."""

    person: str
    method: str
    path: str
    parameters: dict[str, Any] = field(default_factory=dict)
    query: dict[str, Any] = field(default_factory=dict)
    body: Any = None

    def __str__(self) -> str:
        body = "" if self.body is None else f" {self.body!r}"
        query = f" ?{self.query!r}" if self.query else ""
        told = self.path.format(**{key: repr(value) for key, value in self.parameters.items()})
        return f"{self.person}: {self.method} {told}{query}{body}"


@dataclass(frozen=True)
class Answer:
    """`body` is what the JSON says; the text, where it is none."""

    status: int
    body: Any

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


@dataclass
class Server:
    """A server, the tokens of people on it, and the ids of the things there by their kinds."""

    name: str
    http: httpx.Client
    tokens: dict[str, str] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)

    def ask(self, request: Request) -> Answer:
        headers = {}
        if request.person in self.tokens:
            headers["Authorization"] = f"Bearer {self.tokens[request.person]}"
        parameters = {key: self.told(value) for key, value in request.parameters.items()}
        answer = self.http.request(
            request.method,
            request.path.format(**parameters),
            params={k: v for k, v in self.told(request.query).items() if v is not None},
            headers=headers,
            **self._content(request, headers),
        )
        try:
            body = json.loads(answer.content) if answer.content else None
        except ValueError:
            body = answer.headers.get("content-type", "")
        return Answer(answer.status_code, body)

    def told(self, value: Any) -> Any:
        """A part of a request, with the ids of this server."""
        if isinstance(value, Id):
            return self.ids[value]
        if isinstance(value, dict):
            return {key: self.told(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self.told(each) for each in value]
        return value

    def _content(self, request: Request, headers: dict[str, str]) -> dict[str, Any]:
        body = request.body
        if body is None:
            return {}
        if isinstance(body, Echo):
            body = self.ask(replace(request, method="GET", body=None)).body
        if isinstance(body, Form):
            files = {name: (file, text.encode()) for name, (file, text) in body.files.items()}
            return {"data": self.told(body.fields), "files": files or None}
        raw = body if isinstance(body, Raw) else Raw(json.dumps(self.told(body)))
        headers["Content-Type"] = raw.content_type
        return {"content": raw.text.encode(errors="surrogatepass")}


class Pair:
    """Ours and the reference."""

    def __init__(self, ours: str, reference: str) -> None:
        self.servers = [
            # A server that crashes in a request closes a connection that would be used again.
            Server(name, httpx.Client(base_url=url, timeout=60, limits=_NEW_CONNECTIONS))
            for name, url in (("ours", ours), ("reference", reference))
        ]
        self._pool = ThreadPoolExecutor(2)
        self._numbers = count(1)

    @property
    def ours(self) -> Server:
        return self.servers[0]

    @property
    def reference(self) -> Server:
        return self.servers[1]

    def both(self, act: Callable[[Server], Result]) -> list[Result]:
        return list(self._pool.map(act, self.servers))

    def ask(self, request: Request) -> tuple[Answer, Answer]:
        named = replace(request, body=self._named(request.body))
        ours, reference = self.both(lambda server: server.ask(named))
        return ours, reference

    def make(self, request: Request, kind: str | None = None, pick: Any = ("id",)) -> list[Any]:
        """Both answers, which must be successes; the id found in them is from now on of `kind`."""
        answers = self.ask(request)
        for server, answer in zip(self.servers, answers, strict=True):
            if not answer.ok:
                raise RuntimeError(f"{server.name} refused {request}: {answer}")
            if kind is not None:
                found = answer.body
                for part in pick:
                    found = found[part]
                server.ids[kind] = found
        return [answer.body for answer in answers]

    def _named(self, value: Any) -> Any:
        """A body with a new name for each that is to be fresh, the same on both servers."""
        if isinstance(value, Fresh):
            number = next(self._numbers)
            return value.replace("@", f".{number}@") if "@" in value else f"{value} {number}"
        if isinstance(value, dict):
            return {key: self._named(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._named(each) for each in value]
        return value

    def log_in(self, person: str, credentials: list[tuple[str, str]]) -> None:
        """Log a person in, with the email and the password that they have on each server."""

        def token(server: Server) -> str:
            email, password = credentials[self.servers.index(server)]
            form = {"username": email, "password": password}
            answer = server.http.post("/auth/token/login/", data=form)
            return str(answer.raise_for_status().json()["access_token"])

        for server, made in zip(self.servers, self.both(token), strict=True):
            server.tokens[person] = made
