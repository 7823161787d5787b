"""Which tests are of which tier, and which of them run one after the other in one process.

A tier is told by the fixtures that a test asks for; a test that starts its servers itself is marked
by hand. A file stays in one process, as its tests share what they have made; so do all files on the
cluster, of which a machine has one.
"""

from collections.abc import Callable

import pytest
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

# The fixtures that make a test one of a tier; the first one counts.
TIERS = {
    "cluster": ("cluster",),
    "stack": ("stack", "arena"),
    "api": ("postgres",),
    "unit": (),
}
ON_THE_CLUSTER = (
    "tests/deployments/test_upgrade_on_a_cluster.py",
    "tests/differential/test_surroundings.py",
    "tests/flows/activities/test_site.py",
    "tests/flows/launchers/slurm/test_facility.py",
    "tests/flows/launchers/slurm/test_jobs.py",
    "tests/flows/launchers/slurm/test_launcher.py",
    "tests/flows/launchers/slurm/test_lying_site.py",
    "tests/flows/process/test_transport.py",
    "tests/test_cluster.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests, and order files by the highest of their tiers."""
    ranks: dict[str, int] = {}
    for item in items:
        tier = _tier(item)
        item.add_marker(tier)
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("nightly")
        if tier == "cluster" and _file(item.nodeid) not in ON_THE_CLUSTER:
            raise pytest.UsageError(f"Add {_file(item.nodeid)} to ON_THE_CLUSTER in {__file__}.")
        rank, file = list(TIERS).index(tier), _file(item.nodeid)
        ranks[file] = min(rank, ranks.get(file, rank))
    items.sort(key=lambda item: ranks[_file(item.nodeid)])


def _tier(item: pytest.Item) -> str:
    for tier in TIERS:
        if item.get_closest_marker(tier):
            return tier
    asked = set(getattr(item, "fixturenames", ()))
    return next((tier for tier, fixtures in TIERS.items() if asked & set(fixtures)), "unit")


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


class Scheduling(LoadFileScheduling):  # type: ignore[misc]
    """Gives the next file to the process that has none left.

    One process takes them from the end of the queue: tests of the lower tiers compute, and so have
    the processors while those of the higher ones wait.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = _file(nodeid)
        return "the cluster" if file in ON_THE_CLUSTER else file

    def _assign_work_unit(self, node: WorkerController) -> None:
        if node is self.nodes[-1]:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(
    config: pytest.Config, log: Callable[..., object]
) -> LoadFileScheduling:
    return Scheduling(config, log)
