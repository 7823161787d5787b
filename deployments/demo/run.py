"""The steps of the demo: a stack, a plate, a package, a workflow, a job, a picture."""

import json
import os
import secrets
import shutil
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from deployments.data_dir import make_data_dir
from deployments.demo.client import DemoError, FractalClient
from deployments.demo.report import follow, show_history
from deployments.stack import Stack, StackOptions, running_stack
from flows.process.transport import LocalTransport

PACKAGE, VERSION = "fractal-tasks-core", "2.1.0"
LABEL, FEATURES = "nuclei", "nuclei_features"
ADMIN = "demo@example.org"

# Scripts are sent as text, because the OS user of jobs may not be able to read their files.
_RUN_TEXT = "import sys; exec(compile(sys.stdin.read(), 'script', 'exec'))"

_HERE = Path(__file__).parent
_SCRIPTS = {name: _HERE / f"{name}.py" for name in ("plate", "contact_sheet")}


def run_demo(data_dir: Path, output: Path, wells: int, keep: bool) -> None:
    """Run the demo in a data directory. If it was used before, its task environment is used again.

    Raises:
        DemoError: a step failed, or the picture and the history do not agree.
    """
    out = Console()
    data_dir = data_dir.expanduser().absolute()
    make_data_dir(data_dir)
    password = _password(data_dir / "demo-password")
    options = StackOptions(
        data_dir=data_dir, port=0, prefect_port=0, admin_email=ADMIN, admin_password=password
    )
    began = time.monotonic()
    out.print(f"[bold]Starting[/] PostgreSQL, Prefect, a worker and the REST API in {data_dir}")
    with running_stack(options, lambda line: out.print(f"  {line}")) as stack:
        out.print(f"  ready after {time.monotonic() - began:.1f} s")
        job = _process_plate(stack, password, data_dir, output, wells, out)
        _show_places(stack, password, job, out)
        if keep:
            _wait(stack, out)
    out.print(f"[bold green]Done[/] in {time.monotonic() - began:.0f} s. Everything was stopped.")
    out.print(f"Images and the task environment stay in {data_dir}, for the next time.")


def _process_plate(
    stack: Stack, password: str, data_dir: Path, output: Path, wells: int, out: Console
) -> dict[str, Any]:
    client = FractalClient(stack.api_url, ADMIN, password)
    group = client.task_group(PACKAGE, VERSION)
    if group is None:
        out.print(f"[bold]Collecting[/] {PACKAGE} {VERSION} into an environment of its own")
        group = client.collect(PACKAGE, VERSION)
    out.print(f"  {len(group['task_list'])} tasks in {group['venv_path']}")
    python = f"{group['venv_path']}/bin/python"

    out.print(f"[bold]Making[/] a plate of {wells} wells from a real microscope image")
    zarr_dir = data_dir / "projects" / f"{datetime.now():%Y%m%d-%H%M%S}"
    run_script = _Scripts(python, stack.initialised.jobs_user)
    images = run_script("plate", "--output", str(zarr_dir), "--wells", str(wells))

    job, workflow_tasks = _submit(client, group, zarr_dir, images)
    out.print(f"[bold]Job {job['id']}[/] is submitted")
    job = follow(client, job, workflow_tasks, out)
    show_history(client, job, workflow_tasks, out)
    if job["status"] != "done":
        raise DemoError(f"Job {job['id']} is {job['status']}. Its log:\n{job['log']}")
    _draw(client, job, run_script, output, wells, out)
    return job


def _submit(
    client: FractalClient, group: dict[str, Any], zarr_dir: Path, images: list[dict[str, Any]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Make project, dataset and workflow, and submit. Returns the job and its workflow tasks."""
    stamp = zarr_dir.name
    project = client.post("/api/v2/project/", {"name": f"Demo {stamp}"})
    base = f"/api/v2/project/{project['id']}"
    dataset = client.post(
        f"{base}/dataset/import/",
        {"name": "Cardiomyocytes", "zarr_dir": str(zarr_dir), "images": images},
    )
    workflow = client.post(f"{base}/workflow/", {"name": "Project, segment, measure"})
    ids = {task["name"]: task["id"] for task in group["task_list"]}
    steps = json.loads((_HERE / "workflow.json").read_text())
    workflow_tasks = client.post(
        f"{base}/workflow/{workflow['id']}/wftask/",
        [{"task_id": ids[step.pop("task_name")], **_given(step)} for step in steps],
    )
    job = client.post(
        f"{base}/job/submit/", {}, workflow_id=workflow["id"], dataset_id=dataset["id"]
    )
    return job, workflow_tasks


def _given(step: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in step.items() if value is not None}


def _draw(
    client: FractalClient,
    job: dict[str, Any],
    run_script: "_Scripts",
    output: Path,
    wells: int,
    out: Console,
) -> None:
    """Draw the contact sheet of the projected images.

    Raises:
        DemoError: an image is missing, or a well has no objects.
    """
    page = client.post(
        f"/api/v2/project/{job['project_id']}/dataset/{job['dataset_id']}/images/query/",
        {"type_filters": {"is_3D": False}},
        page_size=1000,
    )
    if len(page["items"]) != wells:
        raise DemoError(f"{len(page['items'])} projected images, where {wells} were expected.")
    folder = Path(job["dataset_dump"]["zarr_dir"])
    listing, picture = folder / "projected.json", folder / "contact_sheet.png"
    listing.write_text(json.dumps(page["items"]))
    listing.chmod(0o644)
    arguments = ["--images", str(listing), "--output", str(picture)]
    counts = run_script("contact_sheet", *arguments, "--label", LABEL, "--table", FEATURES)
    output.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(picture, output)
    empty = [well for well, count in counts["wells"].items() if count == 0]
    if empty:
        raise DemoError(f"No objects were found in {', '.join(empty)}.")
    told = ", ".join(f"{well}: {count}" for well, count in counts["wells"].items())
    out.print(f"[bold]Objects[/] {counts['total']} ({told})")
    out.print(f"[bold]Picture[/] {output.absolute()}")
    out.print(f"[bold]Images[/]  {job['dataset_dump']['zarr_dir']}")


class _Scripts:
    """Runs scripts of the demo in the task package's environment, as the OS user of jobs."""

    def __init__(self, python: str, username: str | None) -> None:
        self._command = [*LocalTransport(username).prefix(), python, "-c", _RUN_TEXT]

    def __call__(self, name: str, *arguments: str) -> Any:
        """Run a script. Returns its JSON output."""
        done = subprocess.run(
            [*self._command, *arguments],
            input=_SCRIPTS[name].read_text(),
            cwd="/",
            umask=0o022,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise DemoError(f"{name}.py failed: {done.stderr.strip()[-2000:]}")
        return json.loads(done.stdout)


def _show_places(stack: Stack, password: str, job: dict[str, Any], out: Console) -> None:
    run_url = f"{stack.prefect_url}/runs/flow-run/{job['flow_run_id']}"
    out.print(f"[bold]Prefect[/] {run_url}   (asks for: {stack.prefect_auth})", soft_wrap=True)
    out.print(
        f"[bold]REST[/]    {stack.api_url}/docs   (log in as {ADMIN} with {password})",
        soft_wrap=True,
    )


def _wait(stack: Stack, out: Console) -> None:
    out.print("Everything keeps running, look around. Ctrl-C ends it.")
    try:
        while True:
            for line in stack.keep_alive():
                out.print(line)
            time.sleep(1)
    except KeyboardInterrupt:
        out.print()


def _password(path: Path) -> str:
    """The demo user's password, generated once per data directory; readable by the owner."""
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(12))
    return path.read_text()
