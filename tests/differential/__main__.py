"""Compare this API with the reference by random requests and workflows.

    python -m tests.differential [--seed 7] [--requests 5000] [--workflows 2000] [--report FILE]

Each finding that is not known is told, and fails the run; the report has a JSON line for each
finding, also for those that are known. A single case: `--first <its number> --requests 1`.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from random import SystemRandom

from tests.differential.arena import Arena, running_arena
from tests.differential.findings import Finding
from tests.differential.play import Stage
from tests.differential.reference import NoReferenceError
from tests.differential.request_cases import RequestCases
from tests.differential.workflow_cases import WorkflowCases


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6))
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--workflows", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--report", type=Path, default=Path("differences.jsonl"))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    try:
        with running_arena(str(options.seed)) as here:
            unknown = compare(here, options)
    except NoReferenceError as error:
        raise SystemExit(f"There is nothing to compare with: {error}") from None
    raise SystemExit(1 if unknown else 0)


def compare(here: Arena, options: argparse.Namespace) -> int:
    """How many cases differ in a way that is not known."""
    stages = [Stage(server, f"stage {options.seed}") for server in here.pair.servers]
    requests = RequestCases(here.pair, here.world, here.document, options.seed)
    workflows = WorkflowCases(stages, options.seed)
    unknown = 0
    with options.report.open("w") as report:
        for name, cases, number in (
            ("requests", requests, options.requests),
            ("workflows", workflows, options.workflows),
        ):
            began, counts = time.monotonic(), Counter[str]()
            told: set[tuple[str, ...]] = set()
            for finding in cases.run(range(options.first, options.first + number)):
                report.write(f"{json.dumps(finding.record())}\n")
                report.flush()
                counts[finding.known or "unknown"] += 1
                _tell(finding, told)
            print(f"{number} {name} compared in {time.monotonic() - began:.0f} s", flush=True)
            for reason, times in counts.most_common():
                print(f"{times:6}  {reason}")
            unknown += counts["unknown"]
    return unknown


def _tell(finding: Finding, told: set[tuple[str, ...]]) -> None:
    """The first of the findings that have the same signature."""
    if finding.known is None and finding.signature not in told:
        told.add(finding.signature)
        print(finding, flush=True)


if __name__ == "__main__":
    main()
