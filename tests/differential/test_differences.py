"""A short comparison with the reference; `python -m tests.differential` is the long one."""

from tests.differential.arena import Arena
from tests.differential.conftest import SEED
from tests.differential.request_cases import RequestCases

REQUESTS = 200


def test_requests_are_answered_as_by_the_reference(servers: Arena) -> None:
    cases = RequestCases(servers.pair, servers.world, servers.document, SEED)

    findings = [str(each) for each in cases.run(range(REQUESTS)) if each.known is None]

    assert not findings, "\n".join(findings)
    assert cases.asked == REQUESTS
