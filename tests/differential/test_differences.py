"""A short comparison with the reference; `python -m tests.differential` is the long one."""

from tests.differential.arena import Arena
from tests.differential.conftest import SEED
from tests.differential.play import Stage
from tests.differential.request_cases import RequestCases
from tests.differential.workflow_cases import WorkflowCases

REQUESTS, WORKFLOWS = 100, 4


def test_requests_are_answered_as_by_the_reference(arena: Arena) -> None:
    cases = RequestCases(arena.pair, arena.world, arena.document, SEED)

    findings = [str(each) for each in cases.run(range(REQUESTS)) if each.known is None]

    assert not findings, "\n".join(findings)
    assert cases.asked == REQUESTS


def test_workflows_leave_what_they_leave_with_the_reference(arena: Arena) -> None:
    stages = [Stage(server, f"stage {SEED}") for server in arena.pair.servers]
    cases = WorkflowCases(stages, SEED)

    findings = [str(each) for each in cases.run(range(WORKFLOWS)) if each.known is None]

    assert not findings, "\n".join(findings)
    assert cases.played == WORKFLOWS
