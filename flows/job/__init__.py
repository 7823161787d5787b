"""A job as a Prefect flow. Begin with `flow.py`, which is the flow.

`opening` finds or makes the job of a flow run; `run` is the job while it runs. `workflow_task` is
the Prefect task that runs one workflow task, `workflow_task_run` holds its images and their
changes, `phase` its units while they run. `hooks` are the state hooks of Prefect, which write the
history; `end` ends a job. Deployments in Prefect name the flow as `flows.job.run_job`.
"""

from flows.job.flow import run_job

__all__ = ["run_job"]
