"""Commands about jobs: `fractal-prefect job plan`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.administration_commands import DataDir, with_session
from fractal_models.variables import SettingsError

if TYPE_CHECKING:
    from sqlmodel.ext.asyncio.session import AsyncSession

    from flows.parameters import JobRequest
    from fractal_models.schemas.plan import Finding

app = typer.Typer()
jobs = typer.Typer(help="Jobs.", no_args_is_help=True)
app.add_typer(jobs, name="job")

_NUMBER_OR_NAME = "Its name, or its number."


@jobs.callback()
def _about_jobs() -> None:
    """Jobs."""


@jobs.command()
def plan(
    project: Annotated[str, typer.Argument(help=_NUMBER_OR_NAME)],
    workflow: Annotated[str, typer.Argument(help=_NUMBER_OR_NAME)],
    dataset: Annotated[str, typer.Argument(help=_NUMBER_OR_NAME)],
    user: Annotated[str, typer.Option(help="Email of the user whose job it would be.")],
    first_task: Annotated[int | None, typer.Option(min=0, help="Its place; default: 0.")] = None,
    last_task: Annotated[int | None, typer.Option(min=0, help="Default: the last.")] = None,
    attribute_filters: Annotated[str, typer.Option(help='JSON, as {"well": ["A01"]}')] = "{}",
    type_filters: Annotated[str, typer.Option(help='JSON, as {"is_3D": true}')] = "{}",
    slurm_account: Annotated[str | None, typer.Option(help="One of the user's.")] = None,
    not_done: Annotated[
        bool, typer.Option("--not-done", help="Only images that a task is not done with.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As the REST API tells it.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Tell what a job would do, what it would take, and what is wrong with it. Nothing is changed.

    The exit code is 1 if there are errors.
    """
    request = {
        "user": user,
        "project": project,
        "workflow": workflow,
        "dataset": dataset,
        "first_task": first_task,
        "last_task": last_task,
        "images": "not done" if not_done else "all",
        "attribute_filters": _json("--attribute-filters", attribute_filters),
        "type_filters": _json("--type-filters", type_filters),
        "slurm_account": slurm_account,
    }
    failed: list[Finding] = []

    async def tell(session: "AsyncSession") -> None:
        from rich.console import Console
        from rich.markdown import Markdown

        from flows.plans.job import plan_named
        from flows.reports.plan import plan_as_markdown

        found = await plan_named(session, _request(request))
        failed.extend(each for each in found.findings if each.level == "error")
        if as_json:
            typer.echo(found.model_dump_json(indent=2))
        else:
            Console().print(Markdown(plan_as_markdown(found)))

    with_session(data_dir, tell)
    if failed:
        raise typer.Exit(1)


def _request(given: dict[str, Any]) -> "JobRequest":
    from pydantic import ValidationError

    from flows.parameters import JobRequest
    from fractal_models.schemas.base import problems_of

    try:
        return JobRequest.model_validate(given)
    except ValidationError as error:
        raise SettingsError(f"{problems_of(error)}.") from error


def _json(option: str, text: str) -> Any:
    from fractal_models.exact_json import loads

    try:
        return loads(text)
    except ValueError as error:
        raise SettingsError(f"{option} is no JSON: {error}") from error
