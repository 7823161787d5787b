"""The history that a job leaves which has done all images of a dataset, written at once."""

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession


async def write_done_units(
    session: AsyncSession, dataset_id: int, workflowtask_id: int, run_id: int
) -> None:
    """A unit of the run on each image of the dataset, the latest of the workflow task there."""
    given = {"dataset": dataset_id, "workflow_task": workflowtask_id, "run": run_id}
    await session.execute(_WRITE, given)


_WRITE = text(
    """
    WITH units AS (
        INSERT INTO historyunit (history_run_id, status, logfile, has_warnings, zarr_urls)
        SELECT :run, 'done', '/log', false, ARRAY[zarr_url] FROM datasetimage
        WHERE dataset_id = :dataset ORDER BY id RETURNING id, zarr_urls
    )
    INSERT INTO historyimagecache (dataset_id, workflowtask_id, zarr_url, latest_history_unit_id)
    SELECT :dataset, :workflow_task, zarr_urls[1], id FROM units
    """
)
