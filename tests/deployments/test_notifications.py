"""`fractal-prefect notify`: who wants to know of a job that failed, is told by Prefect."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import AutomationSort, FlowRunSort
from prefect.events.schemas.automations import Automation, AutomationCore

from deployments.notifications import NotificationsError, Subject
from deployments.services import usable_port
from deployments.stack import Stack
from tests.conftest import PREFECT_AWAY
from tests.deployments.conftest import COMMAND, Run, environment
from tests.deployments.receivers import PASSWORD, USER, mail_server, web_server
from tests.lab import Lab, eventually

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "automations.md"
SMTP = {
    "FRACTAL_SMTP_HOST": "127.0.0.1",
    "FRACTAL_SMTP_SECURITY": "none",
    "FRACTAL_SMTP_USER": USER,
    "FRACTAL_SMTP_PASSWORD": PASSWORD,
    "FRACTAL_SMTP_FROM": "fractal@example.org",
}


@pytest.fixture
async def prefect(stack: Stack, prefect: PrefectClient) -> AsyncIterator[PrefectClient]:
    """The Prefect API of the stack, in which no automation is left."""
    yield prefect
    for automation in await automations(prefect):
        await prefect.delete_automation(automation.id)


async def notify(stack: Stack, *arguments: str, **settings: str) -> str:
    """What `fractal-prefect notify` says, run as people run it, with the settings of Prefect."""
    of_prefect = {k: v for k, v in stack.environment.items() if k.startswith("PREFECT_API")}
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        "notify",
        *arguments,
        env=environment(stack.data_dir) | of_prefect | settings,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def fail(lab: Lab) -> dict[str, Any]:
    """A job that has failed, with one of two units."""
    failing = {"args_parallel": {"fail_on": ["A02"]}}
    workflow = await lab.workflow(("Process", failing))
    job = await lab.run(workflow, await lab.dataset("A01", "A02"))
    assert job["status"] == "failed"
    return job


async def automations(prefect: PrefectClient) -> list[Automation]:
    return await prefect.read_automations(sort=AutomationSort.NAME_ASC, limit=200)


async def test_a_webhook_hears_of_each_job_that_fails_and_of_no_other(
    lab: Lab, stack: Stack, prefect: PrefectClient
) -> None:
    with web_server() as hook:
        said = await notify(stack, "--webhook", hook.url)
        assert "secret" not in said
        await lab.run(await lab.workflow("Process"), await lab.dataset("A01"))
        jobs = [await fail(lab) for _ in range(2)]

        async def posted() -> list[dict[str, Any]]:
            return hook.posted

        heard = await eventually(posted, lambda posts: len(posts) >= 2)
    assert [each["job_id"] for each in heard] == [job["id"] for job in jobs]
    first, job = heard[0], jobs[0]
    assert "1 of 2 units failed" in first.pop("reason")
    assert first.pop("text").startswith(f"{first['job']}: failed. ")
    assert first.pop("occurred").startswith("20")
    workflow = job["workflow_dump"]["name"]
    assert first == {
        "event": "fractal.job.failed",
        "job": f"job {job['id']} · {workflow} on images",
        "job_id": job["id"],
        "status": "failed",
        "workflow": workflow,
        "dataset": "images",
        "project": "lab",
        "user": stack.initialised.admin_email,
        "resource": "local",
        "num_units": 2,
        "num_failed_units": 1,
        "workflow_task": None,
        "url": f"{stack.prefect_url}/runs/flow-run/{job['flow_run_id']}",
    }


async def test_a_mail_tells_everybody_why_a_job_failed(
    lab: Lab, stack: Stack, prefect: PrefectClient
) -> None:
    port = usable_port("127.0.0.1", 0, "")
    addresses = ["one@example.org", "two@example.org"]
    with mail_server(port) as mailbox:
        options = [word for address in addresses for word in ("--email", address)]
        said = await notify(stack, *options, **SMTP, FRACTAL_SMTP_PORT=str(port))
        assert PASSWORD not in said
        job = await fail(lab)

        async def mails() -> list[Any]:
            return mailbox.mails

        ((recipients, mail),) = await eventually(mails, bool)
    assert recipients == addresses
    assert mail["Subject"] == (
        f"Fractal: job {job['id']} · {job['workflow_dump']['name']} on images: failed"
    )
    body = mail.get_content()
    assert "1 of 2 units failed" in body
    assert "Project:  lab" in body
    assert f"{stack.prefect_url}/runs/flow-run/{job['flow_run_id']}" in body
    assert "{" not in body.replace(job["flow_run_id"], "").partition("Units:")[2]


async def test_only_what_was_asked_for_is_told(
    lab: Lab, stack: Stack, prefect: PrefectClient
) -> None:
    with web_server() as none, web_server() as all_:
        for project, hook in ((lab.project_id + 1, none), (lab.project_id, all_)):
            await notify(
                stack,
                *("--webhook", hook.url, "--name", f"project-{project}"),
                *("--project", str(project), "--resource", "local"),
                *("--user", stack.initialised.admin_email, "--event", "fractal.job.done"),
                *("--event", "fractal.workflow-task.done"),
            )
        await lab.run(await lab.workflow("Process"), await lab.dataset("A01"))

        async def heard() -> list[str]:
            return sorted(post["event"] for post in all_.posted)

        await eventually(
            heard, lambda events: events == ["fractal.job.done", "fractal.workflow-task.done"]
        )
    assert none.posted == []


async def test_the_same_name_is_updated_and_can_be_removed(
    stack: Stack, prefect: PrefectClient
) -> None:
    made = await notify(stack, "--webhook", "http://127.0.0.1:9/one", "--name", "mine")
    assert "mine was made" in made
    (first,) = await automations(prefect)
    updated = await notify(
        stack, "--email", "one@example.org", "--name", "mine", "--project", "3", **SMTP
    )
    assert "mine was updated" in updated
    (second,) = await automations(prefect)
    assert second.id == first.id
    assert f"{stack.prefect_url}/automations/automation/{first.id}" in updated
    assert second.actions[0].type == "send-notification"
    listed = await notify(stack, "--list")
    assert listed.startswith("mine: Tells of fractal.job.failed of project 3.")

    async def blocks() -> set[str]:
        documents = await prefect.read_block_documents(limit=200, offset=0)
        return {document.block_type.slug for document in documents if document.name == "mine"}

    assert await blocks() == {"fractal-mail"}  # and no webhook any more
    assert "mine was removed" in await notify(stack, "--remove", "mine")
    assert await automations(prefect) == []
    assert await blocks() == set()
    assert await notify(stack, "--list") == "None.\n"


async def test_the_password_of_the_mail_server_is_not_shown_by_prefect(
    stack: Stack, prefect: PrefectClient
) -> None:
    await notify(stack, "--email", "one@example.org", **SMTP)
    document = await prefect.read_block_document_by_name(
        "fractal-email", "fractal-mail", include_secrets=False
    )
    assert PASSWORD not in str(document.data)
    assert document.data["host"] == "127.0.0.1"


HOOK = ("--webhook", "http://127.0.0.1:9/hook")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "--email"),
        ((*HOOK, "--list"), "Give one of"),
        (("--email", "nobody"), "'nobody' is not a mail address"),
        (("--webhook", "example.org/hook"), "not an http:// or https:// URL"),
        (("--webhook", "http://["), "not an http:// or https:// URL"),
        ((*HOOK, "--event", "fractal.job.lost"), "fractal.job.failed"),
        ((*HOOK, "--name", "My hook"), "'My hook' cannot be a name"),
        ((*HOOK, "--resource", "elsewhere"), "work pools in Prefect: local"),
        (("--email", "one@example.org"), "FRACTAL_SMTP_HOST is not set"),
        (("--remove", "nothing"), "There is no notification 'nothing'"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(
    fractal_prefect: Run, stack: Stack, arguments: tuple[str, ...], told: str
) -> None:
    smtp = {name: SMTP[name] for name in ("FRACTAL_SMTP_FROM",)}
    assert fractal_prefect("notify", *arguments, **stack.environment, **smtp).is_error(told)


def test_a_prefect_that_is_away_is_told_in_a_line(fractal_prefect: Run) -> None:
    ended = fractal_prefect("notify", *HOOK, PREFECT_API_URL=PREFECT_AWAY)
    assert ended.is_error("The Prefect API does not answer")


def test_an_address_that_is_not_prefects_api_is_told_in_a_line(
    fractal_prefect: Run, stack: Stack
) -> None:
    for url in (stack.prefect_url, f"{stack.api_url}/api"):
        ended = fractal_prefect("notify", *HOOK, PREFECT_API_URL=url)
        assert ended.is_error(url, "ends with /api")


def test_a_wrong_password_of_prefect_is_told_in_a_line(fractal_prefect: Run, stack: Stack) -> None:
    wrong = stack.environment | {"PREFECT_API_AUTH_STRING": "fractal:guessed"}
    assert fractal_prefect("notify", *HOOK, **wrong).is_error("The Prefect API refuses", "401")


def test_an_unknown_event_names_the_known_ones() -> None:
    with pytest.raises(NotificationsError, match=r"fractal\.workflow-task\.failed"):
        Subject(["fractal.lost"]).trigger()


async def test_the_automation_of_the_documentation_runs_a_deployment_after_a_job(
    lab: Lab, prefect: PrefectClient
) -> None:
    dataset, workflow = await lab.dataset("A01"), await lab.workflow("Process")
    deployment_id = await prefect.create_deployment(
        flow_id=await prefect.create_flow_from_name("report"),
        name="report",
        enforce_parameter_schema=False,
    )
    text = DOCUMENTATION.read_text().partition("```yaml\n")[2].partition("```")[0]
    text = text.replace(str(UUID(int=0)), str(deployment_id))
    text = text.replace("fractal.workflow.7", f"fractal.workflow.{workflow['id']}")
    await prefect.create_automation(AutomationCore.model_validate(yaml.safe_load(text)))
    await lab.run(await lab.workflow("Process"), dataset)  # of another workflow
    await lab.run(workflow, dataset)

    async def runs() -> list[FlowRun]:
        return await prefect.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id])),
            sort=FlowRunSort.ID_DESC,
            limit=10,
        )

    (run,) = await eventually(runs, bool)
    assert run.parameters == {"dataset_id": dataset["id"]}
