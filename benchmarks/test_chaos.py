"""The chaos benchmark: its schedule, what it finds, and a short run of it."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import chaos
from benchmarks.havoc import schedule
from tests.consistency import Findings, Unit, compare

# With this seed everything is killed: job, runner, worker, API, Prefect, PostgreSQL.
SEED, ROUNDS = 593, 5

A, B = ("process", "/plate/A"), ("process", "/plate/B")


def write_journal(path: Path, *lines: tuple[str, Unit]) -> Path:
    entries = [{"event": event, "kind": kind, "unit": unit} for event, (kind, unit) in lines]
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    return path


@pytest.fixture
def compared(tmp_path: Path):
    """Compares a journal of these lines, of units A and B, where these were killed."""

    def compare_lines(*lines: tuple[str, Unit], killed: Counter[Unit] | None = None) -> Findings:
        findings = Findings()
        journal = write_journal(tmp_path / "journal", *lines)
        compare(findings, journal, Counter([A, B]), killed or Counter(), may_fail=set())
        return findings

    return compare_lines


def test_a_seed_is_a_schedule():
    assert schedule(5, 50, 4.0) == schedule(5, 50, 4.0)
    assert schedule(5, 20, 4.0) == schedule(5, 50, 4.0)[:20]
    assert schedule(5, 50, 4.0) != schedule(6, 50, 4.0)


def test_the_seed_of_the_short_run_kills_everything():
    killed = {act.target for this in schedule(SEED, ROUNDS, 4.0) for act in this.acts}
    assert {"job", "runner", "worker", "api", "prefect", "postgres"} <= killed


def test_units_that_ran_once_are_no_finding(compared):
    assert not compared(("begin", A), ("begin", B), ("end", B), ("end", A)).faults


def test_a_unit_that_did_not_come_to_its_end_is_lost(compared):
    findings = compared(("begin", A), ("begin", B), ("end", B))
    assert findings.lost == [
        "process of /plate/A began 1 times and ended 0, expected 1; it was killed 0 times"
    ]
    assert not findings.twice


@pytest.mark.parametrize("again", [[("begin", A)], [("begin", A), ("end", A)]])
def test_a_unit_that_began_twice_though_it_was_not_killed_is_a_finding(compared, again):
    findings = compared(("begin", A), ("end", A), ("begin", B), ("end", B), *again)
    assert len(findings.twice) == 1
    assert not findings.lost


def test_a_unit_that_was_killed_may_begin_twice(compared):
    lines = [("begin", A), ("begin", A), ("end", A), ("begin", B), ("end", B)]
    findings = compared(*lines, killed=Counter([A]))
    assert not findings.faults
    assert len(findings.killed) == 1
    assert compared(*lines, killed=Counter([B])).twice


def test_a_unit_that_nobody_planned_is_a_finding(compared):
    unknown = ("process", "/plate/C")
    lines = [("begin", A), ("end", A), ("begin", B), ("end", B)]
    assert compared(*lines, ("begin", unknown), ("end", unknown)).twice


@pytest.mark.stack
@pytest.mark.timeout(600)
def test_jobs_outlive_that_everything_is_killed():
    options = (
        f"--seed {SEED} --rounds {ROUNDS} --jobs 2 --images 25 --pause 4 --patience 200".split()
    )
    ended = subprocess.run(
        [sys.executable, chaos.__file__, *options], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"seed {SEED}, {ROUNDS} rounds" in ended.stdout
    assert "0 findings" in ended.stdout
