"""The differences that are meant, with reasons. `docs/differences.md` tells users of them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.differential.comparison import Difference


@dataclass(frozen=True)
class Known:
    """`operation` and `where` are patterns of the whole name; `when` looks at the values, and `of`
    at the case, where it is a workflow."""

    reason: str
    operation: str = ".*"
    where: str = ".*"
    when: Callable[[Difference], bool] = lambda difference: True
    of: Callable[[Any], bool] = lambda case: True


_STATUS = "__wftask_dataset_image_status__"


def _filters_several_tasks_by_status(case: Any) -> bool:
    return any(
        _STATUS in each.get("attribute_filters", {})
        and each.get("last_task_index", len(case.tasks) - 1) > each.get("first_task_index", 0)
        for each in case.submissions
    )


_MORE = ["flow_run_id", "attempt", "max_rss_kb", "cpu_seconds", "started_at", "ended_at", "host"]
_MORE += ["exit_code", "signal"]

KNOWN = [
    Known("Each server has settings of its own.", "GET /api/settings/.*"),
    Known("Each server tells its own version, too.", "GET /api/alive/"),
    Known(
        "Fields beyond the contract: clients do not look at them.",
        where=rf".*\.({'|'.join(_MORE)})",
        when=lambda difference: difference.reference == "<absent>",
    ),
    Known(
        "Each server has an administrator, a resource and a profile with names of their own.",
        "(GET|PATCH) /auth/current-user/.*",
        r"body\.(email|profile_name|resource_name)",
    ),
    Known(
        "What somebody may not know of is not found.",
        where="status",
        when=lambda difference: (difference.ours[:3], difference.reference[:3]) == ("404", "403"),
    ),
    Known(
        "Groups that somebody is not in are not told apart from those that are not there.",
        where="status",
        when=lambda difference: (
            difference.ours.startswith("403 You are not in user group")
            and difference.reference.startswith("404 UserGroup")
        ),
    ),
    Known(
        "Of several reasons to refuse, each tells the one that it finds first.",
        "POST /auth/users/{user_id}/set-groups/",
        "status",
        lambda difference: difference.ours[:1] == difference.reference[:1] == "4",
    ),
    Known(
        "A profile is for the type of its resource.",
        "PUT /admin/v2/profile/{profile_id}/",
        "status",
        lambda difference: "the profile is for" in difference.ours,
    ),
    Known(
        "Only the first task of a job gets the filter by status.",
        "workflow",
        of=_filters_several_tasks_by_status,
    ),
    Known(
        "Rights are looked at before the body: who may not see a thing learns nothing of it.",
        where="status",
        when=lambda difference: (
            difference.ours[:3] in ("401", "403", "404") and difference.reference[:3] == "422"
        ),
    ),
    Known(
        "What needs no machine is done when it is answered, not some moments later.",
        "POST .*/task-group/{task_group_id}/(delete|deactivate|reactivate)/",
        r"body\.(log|status|taskgroupv2_id|timestamp_ended)",
    ),
]


def reason_of(operation: str, difference: Difference, case: Any = None) -> str | None:
    """Why this difference is meant; None if it is not. `case` is that of a workflow."""
    for known in KNOWN:
        if (
            re.fullmatch(known.operation, operation)
            and re.fullmatch(known.where, difference.where)
            and known.when(difference)
            and known.of(case)
        ):
            return known.reason
    return None
