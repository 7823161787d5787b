"""A stack that a benchmark has for itself."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from deployments.stack import Stack, StackOptions, running_stack
from tests.differential.reference import ADMIN, PASSWORD


@contextmanager
def own_stack(data_dir: Path | None = None, **options: Any) -> Iterator[Stack]:
    """A stack for this block, whose administrator is ADMIN; `options` as those of `StackOptions`.

    Without `data_dir`, its folder is removed with it.
    """
    with ExitStack() as resources:
        if data_dir is None:
            # Units of the last job may still write.
            temporary = tempfile.TemporaryDirectory(
                prefix="fractal-benchmark-", ignore_cleanup_errors=True
            )
            data_dir = Path(resources.enter_context(temporary))
        stack_options = StackOptions(
            data_dir=data_dir,
            port=0,
            prefect_port=0,
            admin_email=ADMIN,
            admin_password=PASSWORD,
            **options,
        )
        yield resources.enter_context(running_stack(stack_options))
