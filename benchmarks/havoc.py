"""What befalls a stack: processes that are killed or stand still, by a schedule from a seed."""

import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from math import inf
from pathlib import Path
from random import Random

import psutil

from deployments.services import Part

Kind = tuple[signal.Signals, str, int, tuple[float, float]]

# What is done to what, how often relative to the others, and for how many seconds a process stands
# still, or a part stays away.
KINDS: list[Kind] = [
    (signal.SIGKILL, "job", 5, (0.0, 0.0)),
    (signal.SIGKILL, "runner", 5, (0.0, 0.0)),
    (signal.SIGKILL, "worker", 4, (1.0, 1.0)),
    (signal.SIGKILL, "prefect", 3, (0.2, 3.0)),
    (signal.SIGKILL, "api", 2, (0.2, 3.0)),
    (signal.SIGQUIT, "postgres", 3, (1.0, 5.0)),  # it calls this an immediate shutdown
    (signal.SIGKILL, "postgres", 1, (1.0, 5.0)),
    (signal.SIGKILL, "backend", 1, (0.0, 0.0)),  # PostgreSQL then restarts all others by itself
    (signal.SIGSTOP, "job", 2, (1.0, 15.0)),
    (signal.SIGSTOP, "runner", 2, (1.0, 15.0)),
    (signal.SIGSTOP, "worker", 1, (1.0, 15.0)),
    (signal.SIGSTOP, "prefect", 1, (1.0, 15.0)),
    (signal.SIGSTOP, "api", 1, (1.0, 15.0)),
    (signal.SIGSTOP, "postgres", 1, (1.0, 15.0)),
    (signal.SIGSTOP, "backend", 1, (1.0, 15.0)),
]
# On a cluster there is more to be done. SLURM's controller is only told to end: one that is killed
# forgets jobs, and gives their numbers to others.
CLUSTER_KINDS: list[Kind] = [
    *KINDS,
    (signal.SIGTERM, "slurmctld", 4, (0.2, 8.0)),
    (signal.SIGKILL, "slurmdbd", 2, (0.2, 10.0)),
    (signal.SIGKILL, "slurmd", 2, (0.2, 5.0)),
    (signal.SIGTERM, "slurm job", 3, (0.0, 0.0)),  # scancel, from outside
]
SSH_KINDS: list[Kind] = [*CLUSTER_KINDS, (signal.SIGKILL, "sshd", 4, (0.2, 5.0))]

_TWO_AT_ONCE = 0.2
_RESTART_SECONDS = 1.0  # after which a supervisor starts a part that ended by itself


@dataclass(frozen=True)
class Act:
    """A signal to a kind of process; `pick`, from 0 to 1, chooses one of several."""

    number: signal.Signals
    target: str
    seconds: float
    pick: float

    @property
    def kind(self) -> str:
        return f"{self.number.name} {self.target}"


@dataclass(frozen=True)
class Round:
    """What is done at once, after so many seconds."""

    pause: float
    acts: tuple[Act, ...]


def schedule(
    seed: int, rounds: int, longest_pause: float, kinds: Sequence[Kind] = KINDS
) -> list[Round]:
    """The rounds of a seed: more of them, or longer pauses, begin with the same acts."""
    random = Random(seed)
    return [_round(random, longest_pause, kinds) for _ in range(rounds)]


def _round(random: Random, longest_pause: float, all_kinds: Sequence[Kind]) -> Round:
    pause = random.random() * longest_pause
    kinds: dict[str, Act] = {}
    wanted = 2 if random.random() < _TWO_AT_ONCE else 1
    while len(kinds) < wanted:
        ((number, target, _, seconds),) = random.choices(all_kinds, [kind[2] for kind in all_kinds])
        act = Act(number, target, random.uniform(*seconds), random.random())
        kinds.setdefault(act.kind, act)
    return Round(pause, tuple(kinds.values()))


class Havoc:
    """Does acts to the parts of a stack, by name, and looks after them as a supervisor would.

    Units run below `folder`; `cancel` ends one of their SLURM jobs, and says which. `ended` counts
    the parts that ended though nothing was done to them.
    """

    def __init__(
        self,
        parts: Mapping[str, Part],
        folder: Path,
        tell: Callable[[str], None],
        cancel: Callable[[float], str | None],
    ) -> None:
        self.ended: Counter[str] = Counter()
        self._parts = parts
        self._folder = folder
        self._tell = tell
        self._cancel = cancel
        self._restarts: dict[str, float] = {}  # of parts that were killed, when they are due
        self._frozen: list[tuple[float, psutil.Process]] = []

    @property
    def is_quiet(self) -> bool:
        """Whether nothing stands still or is away any more."""
        return not self._frozen and not self._restarts

    def strike(self, act: Act) -> str | None:
        """Do an act; a word on whom it hit, or None if there is no such process now."""
        if act.target == "slurm job":
            return self._cancel(act.pick)
        victims = self._victims(act)
        if not victims:
            return None
        now = time.monotonic()
        if act.number == signal.SIGSTOP:
            self._frozen += [(now + act.seconds, victim) for victim in victims]
        elif act.target in self._parts:
            self._restarts[act.target] = now + act.seconds
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                victim.send_signal(act.number)
                if act.number == signal.SIGQUIT:
                    victim.resume()  # one that stands still would not hear of it
        pids = ", ".join(str(victim.pid) for victim in victims)
        return f"{act.kind} ({pids})" + (f" for {act.seconds:.1f} s" if act.seconds else "")

    def tend(self) -> None:
        """Let go on what stood still for long enough; start again what has ended.

        Raises:
            ServiceError: a part cannot be started.
        """
        now = time.monotonic()
        self.thaw(now)
        for name, part in self._parts.items():
            if (how := part.ended()) is None:
                continue
            if name not in self._restarts:
                self.ended[name] += 1
                self._tell(f"{name} ended {how}, to which nothing was done")
                self._restarts[name] = now + _RESTART_SECONDS
            if now >= self._restarts[name]:
                part.start()
                del self._restarts[name]

    def thaw(self, now: float = inf) -> None:
        """Let go on what was to stand still until now."""
        for entry in [entry for entry in self._frozen if entry[0] <= now]:
            self._frozen.remove(entry)
            with suppress(psutil.NoSuchProcess):
                entry[1].resume()

    def _victims(self, act: Act) -> list[psutil.Process]:
        if act.target == "job":
            found = self._of_worker("deployments.flow_run_process")
        elif act.target == "runner":
            found = runners(self._folder)
        elif act.target == "backend":
            found = [child for server in self._part("postgres") for child in _children(server)]
        else:
            found = self._part(act.target)
            if act.target == "worker":
                found += self._of_worker("deployments.cli worker --work-pool")
                if act.number == signal.SIGKILL:  # as by a reboot, which spares none of them
                    found += self._of_worker("deployments.fork_server deployments.preload")
            connections = [_children(each) for each in found if act.target == "sshd"]
            return [*found, *chain(*connections)]
        found.sort(key=lambda process: process.pid)
        return [found[int(act.pick * len(found))]] if found else []

    def _part(self, name: str) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            if (pid := self._parts[name].pid) is not None:
                return [psutil.Process(pid)]
        return []

    def _of_worker(self, words: str) -> list[psutil.Process]:
        """The processes that the worker has had forked whose command ends with or has these words.

        All are forked, directly or not, from the server from which the worker is.
        """
        servers = [worker.parent() for worker in self._part("worker")]
        family = [each for server in servers if server for each in server.children(recursive=True)]
        return [
            each
            for each in family
            if f"{words} " in (command := " ".join(_command(each))) or command.endswith(words)
        ]


def runners(folder: Path) -> list[psutil.Process]:
    """The unit runners that execute a batch below this folder, of those that have a guard.

    A runner is the child of its guard. Until it has signed it, the lock names the guard; who kills
    first the one and then the other may rightly see units run twice.
    """
    found = []
    for process in psutil.process_iter():
        command = _command(process)
        with suppress(psutil.Error, FileNotFoundError, IndexError):
            if (
                len(command) > 1
                and any(word.endswith("/unit_runner.py") for word in command)
                and Path(command[-1]).is_relative_to(folder)
                and psutil.Process(process.ppid()).cmdline() == command
                and int(Path(command[-1], "lock").read_text().split()[0]) == process.pid
            ):
                found.append(process)
    return found


def processes_of(data_dir: Path) -> list[psutil.Process]:
    """All processes that have to do with a stack's folder, by what they are told or where."""
    folder = str(data_dir)
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid == psutil.Process().pid:
                continue
            told = [process.cwd(), *process.cmdline(), *process.environ().values()]
            if any(folder in text for text in told):
                found.append(process)
    return found


def describe(process: psutil.Process) -> str:
    """Its number, since when it runs, and its command."""
    with suppress(psutil.Error):
        since = datetime.fromtimestamp(process.create_time())
        return f"{process.pid} since {since:%H:%M:%S} ({' '.join(_command(process))[:200]})"
    return str(process.pid)


def _children(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return process.children()
    return []


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []
