"""What the API takes and answers, field by field, against the REST contract."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.api.shapes import shapes

# Where ours departs, and why: "<" is a fact of the contract alone, ">" of ours alone.
DEPARTURES = {
    # Answers.
    r"> answer\S*\.flow_run_id (is|has)": "for users of Prefect",
    r"/units/ > answer\.items\[\]\.(started_at|ended_at|exit_code|attempt) is": "for users of"
    " Prefect",
    r"/units/ > answer\.items\[\]\.(host|max_rss_kb|cpu_seconds) is": "for users of Prefect",
    r"< answer\S*_dump has no other fields": "an answer has the fields that it has",
    r"> answer\S* can be '(r|rw|rwx)'$": "the contract's text has just these permissions",
    r"< answer\S* has format email": "whatever is stored is answered",
    r"< answer\S*\.task\.(name|pkg_name|version) has minLength 1": "answers are not checked",
    r"GET /api/settings/\w+/ > answer is object": "the contract leaves it open",
    r"GET /api/alive/ > answer": "the contract leaves it open",
    r"GET /admin/v2/impersonate/{}/ > answer": "the contract leaves it open",
    r"POST /admin/v2/accounting/slurm/ > answer": "the contract leaves it open",
    r"/images/non-processed/ > answer": "the contract leaves it open",
    r"/status/(image|unit)-log/ > answer is string": "the contract leaves it open",
    r"/type-filters-flow/ > answer": "the contract leaves it open",
    # Requests.
    r"> query page(_size)? has m(in|ax)imum": "what is beyond is refused in the contract, too, or"
    " beyond all lists",
    r"images/ > query zarr_url has minLength 1": "no image has this name",
    r"PATCH /admin/v2/job/{}/ < body\.status can be '(done|submitted)'": "always refused",
    r"> body\S* (is null|has minLength 1)$": "null or nothing is as good as absent, or refused in"
    " the contract after it was read",
    r"< body\.(data\.)?task_list\[\]\.type_filters is null": "taken, and not written down",
    r"> body\.pip_extras has pattern": "becomes part of a command",
    r"POST /api/v2/task/collect/pip/ > body\.package\S* has pattern": "becomes part of a command",
    r"POST /api/v2/task/collect/pip/ < body\.pinned\S* is null": "taken, and not written down",
    r"POST /api/v2/task/collect/pip/ > body is required": "it is: a package or a file",
    r"/job/submit/ > body\.slurm_account has pattern": "users' accounts have it",
    r"> body\.password has maxLength": "hashing a longer one takes long",
    r"> body\.jobs_poll_interval has minimum 0": "no time is less than none",
    r"> body\.jobs_runner_config\.\S*(nodes|parallel_tasks_per_job) has exclusiveMinimum": "no job"
    " runs on none",
    r"/admin/v2/resource/\S* < body\.jobs_runner_config\.user_local_exports\.\* ": "written down as"
    " patterns: these are names of variables",
    r"> body\.jobs_runner_config\.(warm_units|cluster|max_running_jobs|mem) (can be|has|is)": "the"
    " contract has none",
    r"/job/submit/ > body\.mem (can be|has|is)": "the contract has none",
    r"/admin/v2/resource/\S* > body\.tasks_pixi_config": "the contract leaves it open and refuses"
    " the rest later",
}


@pytest.fixture(scope="module")
def differences(contract: Path, ours: dict[str, Any]) -> list[str]:
    theirs = shapes(json.loads((contract / "fractal-rest-2.25.4.openapi.json").read_text()))
    here = shapes(ours)
    return [
        f"{operation} {side} {fact}"
        for operation, facts in theirs.items()
        for side, more, less in (("<", facts, here[operation]), (">", here[operation], facts))
        for fact in sorted(more - less)
    ]


def test_bodies_and_answers_are_those_of_the_contract(differences: list[str]) -> None:
    unknown = [
        line for line in differences if not any(re.search(each, line) for each in DEPARTURES)
    ]

    assert unknown == []


@pytest.mark.parametrize("departure", DEPARTURES)
def test_each_departure_is_one(departure: str, differences: list[str]) -> None:
    assert any(re.search(departure, line) for line in differences)


def document(body: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": body}}
    operation = {"requestBody": {"content": content}, "responses": {}}
    return {"paths": {"/thing/{id}/": {"put": operation}}}


@pytest.mark.parametrize(
    ("schema", "fact"),
    [
        ({"type": "string"}, "body is string"),
        ({"anyOf": [{}, {"type": "null"}]}, "body is null"),
        ({"additionalProperties": False}, "body has no other fields"),
        ({"properties": {"a": {}}, "required": ["a"]}, "body.a is required"),
        ({"properties": {"a": {"default": 5}}}, "body.a is 5 by default"),
        ({"items": {"enum": ["x"]}}, "body[] can be 'x'"),
        ({"additionalProperties": {"minLength": 1}}, "body.* has minLength 1"),
    ],
)
def test_a_schema_is_told_in_facts(schema: dict[str, Any], fact: str) -> None:
    (facts,) = shapes(document(schema)).values()

    assert facts == {"body is application/json", fact}
