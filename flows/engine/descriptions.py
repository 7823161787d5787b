"""Descriptions of the flows for people in the Prefect UI, in Markdown."""

_ACTIVITY_LOG = (
    "**Log**: here, and the `log` of the activity (`TaskGroupActivityV2`) that the REST API gives."
)

DESCRIPTIONS = {
    "run-job": """\
Runs a Fractal job: the tasks of a workflow, one after the other, on the images of a dataset.

**Parameters**: whose job it is, and what is to run on what. A run that is begun here makes its job
first, with the checks of the REST API and the rights of the user that is named; if it may not,
the run fails and says why. `POST /api/v2/project/<id>/job/submit/` makes the job, and then a run
like this one.

**Log**: here, in short. `workflow.log` in the job's folder (`JobV2.working_dir`) has it whole, and
becomes `JobV2.log` when the job ends. Each unit has a log of its own beside its arguments, in
`<order>_<task>/` in that folder.

A run that was interrupted goes on from where it was: units that have ended do not run again.
Cancel the run to stop the job, retry it to have a failed job go on, suspend it to have the job
pause after the workflow task that runs.
""",
    "collect-tasks": f"""\
Installs a package of Fractal tasks into an environment of its own, and adds its tasks.

**Parameters**: `activity_id` is the id of the activity that the REST API made for this; runs are
made by `POST /api/v2/task/collect/pip/`, and by `…/pixi/` for pixi projects.

{_ACTIVITY_LOG}

What a collection made is removed if it fails or is cancelled.
""",
    "deactivate-tasks": f"""\
Removes the environment of a task group that is inactive, which frees its space.

**Parameters**: `activity_id` is the id of the activity that the REST API made for this; runs are
made by `POST /api/v2/task-group/<id>/deactivate/`.

{_ACTIVITY_LOG}

The environment can be made again, with the same versions.
""",
    "reactivate-tasks": f"""\
Makes the environment of a task group again, with exactly the versions that it had, and lets new
jobs use its tasks.

**Parameters**: `activity_id` is the id of the activity that the REST API made for this; runs are
made by `POST /api/v2/task-group/<id>/reactivate/`.

{_ACTIVITY_LOG}

If it fails, the task group stays inactive.
""",
    "reset-tasks": f"""\
Installs the package of an inactive task group anew, with other choices than before, and lets new
jobs use its tasks.

**Parameters**: `activity_id` is the id of the activity that the REST API made for this; runs are
made by `POST /admin/v2/task-group/<id>/reset/pip/`, and by `…/pixi/` for pixi projects.

{_ACTIVITY_LOG}

If it fails, the task group stays inactive, and can be reactivated as it was.
""",
    "delete-tasks": f"""\
Deletes a task group, its environment and its archive.

**Parameters**: `activity_id` is the id of the activity that the REST API made for this; runs are
made by `POST /api/v2/task-group/<id>/delete/`.

{_ACTIVITY_LOG}

If it fails, the task group stays, inactive: it can be deleted again.
""",
}
