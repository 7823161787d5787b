"""Prefect automations that tell people, or other programs, what happens to jobs."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.sorting import AutomationSort
from prefect.events.actions import CallWebhook, SendNotification
from prefect.events.filters import AutomationFilter, AutomationFilterTags
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.types import SecretDict
from pydantic import AnyHttpUrl, SecretStr, TypeAdapter, ValidationError

from deployments.mail import Mail
from flows.engine.client import open_engine
from flows.records.events import JOB_EVENTS, WORKFLOW_TASK_EVENTS
from fractal_models.errors import FractalError
from fractal_models.settings import PrefectSettings, SmtpSettings, mail_address, read_settings

_TAG = "fractal-notify"
_PAGE = 200  # Prefect's limit
_TITLE = (
    "{{ event.payload.job }}"
    "{% if event.payload.workflow_task %}, task {{ event.payload.workflow_task }}{% endif %}"
    ": {{ event.payload.status }}"
)


class NotificationsError(FractalError):
    """Notifications cannot be set up like this; the message says why."""


@dataclass(frozen=True)
class Subject:
    """What notifications are about: events, and the resource, project or user of their jobs."""

    events: Sequence[str]
    resource: str | None = None
    project: int | None = None
    user: str | None = None

    def __str__(self) -> str:
        limits = {"resource": self.resource, "project": self.project, "user": self.user}
        named = [f"{name} {value}" for name, value in limits.items() if value is not None]
        return ", ".join(self.events) + (f" of {', '.join(named)}" if named else "")

    def trigger(self) -> EventTrigger:
        """A trigger that fires for each such event.

        Raises:
            NotificationsError: an event does not exist.
        """
        if unknown := sorted({*self.events} - {*JOB_EVENTS, *WORKFLOW_TASK_EVENTS}):
            raise NotificationsError(
                f"There is no event {unknown[0]!r}; there are: "
                f"{', '.join(JOB_EVENTS + WORKFLOW_TASK_EVENTS)}."
            )
        related = [
            {"prefect.resource.role": role, label: value}
            for role, label, value in (
                ("fractal-resource", "prefect.resource.name", self.resource),
                ("project", "prefect.resource.id", _project_id(self.project)),
                ("user", "prefect.resource.name", self.user),
            )
            if value is not None
        ]
        return EventTrigger(  # defaults are given too: an update sends only what is given
            type="event",
            expect=set(self.events),
            match_related=related or {},
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        )


def _project_id(project: int | None) -> str | None:
    return None if project is None else f"fractal.project.{project}"


@dataclass(frozen=True)
class Made:
    """An automation, its URL in the Prefect UI, and whether it existed before (`updated`)."""

    name: str
    updated: bool
    url: str


def block_for(addresses: Sequence[str], url: str | None) -> Mail | Webhook:
    """The block that sends mails to these addresses or, without addresses, posts to this URL.

    Raises:
        NotificationsError: an address or the URL is not valid.
        SettingsError: no SMTP server is set.
    """
    if not addresses:
        return _webhook(url or "")
    try:
        recipients = [mail_address(address) for address in addresses]
    except ValueError as error:
        raise NotificationsError(f"{error}.") from error
    smtp = read_settings(SmtpSettings)
    return Mail(
        host=smtp.smtp_host,
        security=smtp.smtp_security,
        port=smtp.smtp_port,
        user=smtp.smtp_user,
        password=smtp.smtp_password,
        sender=smtp.smtp_from,
        recipients=recipients,
    )


def _webhook(url: str) -> Webhook:
    try:
        TypeAdapter(AnyHttpUrl).validate_python(url)
    except ValidationError as error:
        raise NotificationsError(f"{url!r} is not an http:// or https:// URL.") from error
    return Webhook(url=SecretStr(url), headers=SecretDict({"Content-Type": "application/json"}))


async def set_up(
    settings: PrefectSettings, name: str, subject: Subject, block: Mail | Webhook
) -> Made:
    """Create the automation with this name, or update it.

    Raises:
        NotificationsError: it cannot be created like this.
        EngineUnavailableError: Prefect does not answer.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise NotificationsError(
            f"{name!r} cannot be a name: use lower-case letters, digits, and dashes in between."
        )
    trigger = subject.trigger()
    async with open_engine(settings) as engine, engine.asking() as client:
        await _require_prefect(client, settings)
        if subject.resource is not None:
            await _require_resource(client, subject.resource)
        block_id = await block.asave(name, overwrite=True, client=client)
        automation = AutomationCore(
            name=name,
            description=f"Tells of {subject}. Made by fractal-prefect notify.",
            tags=[_TAG],
            trigger=trigger,
            actions=[_action(block, block_id, settings.ui_url)],
        )
        found = await _find(client, name)
        if found is None:
            automation_id = await client.create_automation(automation)
        else:
            automation_id = found.id
            await client.update_automation(automation_id, automation)
            await _delete_blocks(client, found, but=block_id)
    url = f"{settings.ui_url}/automations/automation/{automation_id}"
    return Made(name, found is not None, url)


async def read_all(settings: PrefectSettings) -> list[str]:
    """A line about each automation that was created here."""
    async with open_engine(settings) as engine, engine.asking() as client:
        await _require_prefect(client, settings)
        found = await client.read_automations(
            automations=AutomationFilter(tags=AutomationFilterTags(all_=[_TAG])),
            sort=AutomationSort.NAME_ASC,
            limit=_PAGE,
        )
    paused = {True: "", False: " (paused)"}
    return [f"{each.name}{paused[each.enabled]}: {each.description}" for each in found]


async def remove(settings: PrefectSettings, name: str) -> None:
    """Delete the automation with this name, and its block.

    Raises:
        NotificationsError: there is no such automation.
    """
    async with open_engine(settings) as engine, engine.asking() as client:
        await _require_prefect(client, settings)
        if (found := await _find(client, name)) is None:
            raise NotificationsError(f"There is no notification {name!r}: see --list.")
        await client.delete_automation(found.id)
        await _delete_blocks(client, found)


def _action(block: Mail | Webhook, block_id: UUID, ui_url: str) -> SendNotification | CallWebhook:
    link = f"{ui_url}/runs/flow-run/"
    if isinstance(block, Mail):
        return SendNotification(
            type="send-notification",
            block_document_id=block_id,
            subject=f"Fractal: {_TITLE}",
            body=_mail_body(link),
        )
    return CallWebhook(
        type="call-webhook", block_document_id=block_id, payload=_webhook_payload(link)
    )


def _mail_body(link: str) -> str:
    lines = [
        _TITLE,
        "",
        "{% if event.payload.reason %}{{ event.payload.reason }}\n",
        "{% endif %}Units:    {{ event.payload.num_units }},"
        " of which failed {{ event.payload.num_failed_units }}",
        "Project:  {{ event.payload.project }}",
        "User:     {{ event.payload.user }}",
        "Resource: {{ event.payload.resource }}",
        f"{{% if event.payload.flow_run_id %}}Prefect:  {link}{{{{ event.payload.flow_run_id }}}}",
        "{% endif %}",
    ]
    return "\n".join(lines)


def _webhook_payload(link: str) -> str:
    """The template of a JSON object. Slack, Mattermost and similar programs show its `text`."""
    keys = ("job", "job_id", "status", "reason", "workflow", "dataset", "project", "user")
    counts = ("resource", "num_units", "num_failed_units", "workflow_task")
    flow_run = "event.payload.flow_run_id"
    values = {
        "event": "event.event",
        "occurred": "event.occurred.isoformat()",
        **{key: f"event.payload.{key} | default(none)" for key in (*keys, *counts)},
        "url": f"(({json.dumps(link)} ~ {flow_run}) if {flow_run} else none)",
        "text": "(event.payload.job ~ ': ' ~ event.payload.status"
        " ~ (('. ' ~ event.payload.reason) if event.payload.reason else ''))",
    }
    fields = [f'"{key}": {{{{ {value} | tojson }}}}' for key, value in values.items()]
    return f"{{{', '.join(fields)}}}"


async def _require_prefect(client: PrefectClient, settings: PrefectSettings) -> None:
    try:
        await client.api_version()
    except (PrefectHTTPStatusError, ValueError) as error:
        if isinstance(error, PrefectHTTPStatusError) and error.response.status_code != 404:
            raise  # a Prefect API does answer, with this error
        raise NotificationsError(
            f"{settings.prefect_api_url} does not answer as a Prefect API does ({error}): "
            "check PREFECT_API_URL, which ends with /api."
        ) from error


async def _require_resource(client: PrefectClient, name: str) -> None:
    try:
        await client.read_work_pool(name)
    except ObjectNotFound as error:
        pools = ", ".join(pool.name for pool in await client.read_work_pools(limit=_PAGE))
        raise NotificationsError(
            f"There is no resource {name!r}; work pools in Prefect: {pools or 'none yet'}."
        ) from error


async def _find(client: PrefectClient, name: str) -> Automation | None:
    found = await client.read_automations_by_name(name)
    return next((each for each in found if _TAG in each.tags), None)


async def _delete_blocks(
    client: PrefectClient, automation: Automation, *, but: UUID | None = None
) -> None:
    for action in automation.actions:
        if isinstance(action, SendNotification | CallWebhook) and action.block_document_id != but:
            try:
                await client.delete_block_document(action.block_document_id)
            except ObjectNotFound:
                continue
