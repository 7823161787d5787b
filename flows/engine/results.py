"""What Prefect keeps of what flows return: nothing, as their results are in the Fractal schema."""

from pathlib import Path
from typing import Any

# Options of a flow. Where no folder is named, each flow run asks the Prefect server for one.
WITHOUT_RESULTS: dict[str, Any] = {
    "persist_result": False,
    "result_storage": Path("/nonexistent/results"),
}
