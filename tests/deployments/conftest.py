"""The command line: in this process where that shows the same, else as people use it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import psutil
import pytest

from deployments import cli
from deployments.services import is_alive
from fractal_models.settings import get_settings

COMMAND = str(Path(sys.executable).with_name("fractal-prefect"))
FREE_PORTS = ("--port", "0", "--prefect-port", "0")
ONE_API = ("--workers", "1")  # several take longer to start
PATIENCE_SECONDS = 300  # much more than on an idle machine

Run = Callable[..., "Ended"]


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def is_error(self, *told: str) -> bool:
        """Whether it failed with one line that says all this."""
        assert "Traceback" not in self.out + self.err
        assert self.code == 1, self
        assert self.err.startswith("Error: "), self
        assert self.err.count("\n") == 1, self
        for words in told:
            assert words in self.err
        return True


@pytest.fixture
def fractal_prefect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs `fractal-prefect` with these arguments and settings to its end, in this process."""

    def run(*arguments: object, **settings: str) -> Ended:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [COMMAND, *map(str, arguments)])
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        get_settings.cache_clear()
        capsys.readouterr()
        try:
            with (
                patch.dict(os.environ, environment(tmp_path) | settings, clear=True),
                pytest.raises(SystemExit) as ended,
            ):
                cli.main()
        finally:
            get_settings.cache_clear()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        told = capsys.readouterr()
        return Ended(int(ended.value.code or 0), told.out, told.err)

    return run


def environment(home: Path) -> dict[str, str]:
    """This environment without any settings of Fractal's or Prefect's."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("FRACTAL_", "PREFECT_"))}
    return inherited | {"HOME": str(home), "PREFECT_HOME": str(home / "prefect")}


class Up:
    """A `fractal-prefect up` that runs."""

    def __init__(self, data_dir: Path, *arguments: str) -> None:
        self._output = data_dir.with_name(f"{data_dir.name}-{time.monotonic_ns()}.out")
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [COMMAND, "up", "--data-dir", str(data_dir), *FREE_PORTS, *arguments],
                env=environment(data_dir.parent),
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=_hear_ctrl_c,
            )
        self.parts: dict[str, psutil.Process] = {}

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_until_ready(self) -> None:
        self.wait_until(lambda: "Ctrl-C stops everything" in self.output)
        self.find_parts()

    def wait_until(self, seen: Callable[[], object]) -> None:
        """Return when this is seen on a stack that runs."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not seen():
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.1)

    def find_parts(self) -> None:
        """Which processes the parts are now."""
        for entry in json.loads(Path(self.told("Data"), "services.json").read_text()):
            with suppress(psutil.NoSuchProcess):  # it has just ended
                self.parts[entry["name"]] = psutil.Process(entry["pid"])
        server = Path(self.told("Data"), "postgres", "data", "postmaster.pid").read_text().split()
        self.parts["postgres"] = psutil.Process(int(server[0]))

    def told(self, name: str) -> str:
        """What the output says after this name; empty if nothing."""
        found = re.search(rf"^{name}: +(\S+)", self.output, re.MULTILINE)
        return found[1] if found else ""

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)

    def ends_whole(self) -> bool:
        """Whether all parts end, now that `up` has ended or been told to."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while any(map(is_alive, self.parts.values())) and time.monotonic() < deadline:
            time.sleep(0.05)
        return not any(map(is_alive, self.parts.values()))

    def clean_up(self) -> None:
        """Leave no process, whatever happened."""
        if self.process.poll() is None:
            self.end()
        for part in self.parts.values():
            if part.is_running():
                part.kill()


def _hear_ctrl_c() -> None:
    """As in a terminal. (Tests in the background are deaf to it, and so are their children.)"""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
