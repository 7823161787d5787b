"""Tasks of all types whose units write down when they began and ended.

    python journal_tasks.py KIND --args-json A --out-json B

Standard library only, so that a unit takes milliseconds. Each unit appends two lines to the file
that its argument `journal` names: `{"event": "begin" or "end", "kind", "unit", "pid", "at"}`, where
`unit` is the image that it is for (or `all`). It takes `seconds`, and longer until there is a file
`until`; meanwhile it keeps as much memory as `megabytes` says for the name of its image. One whose
image is named in `fail_first` fails when it runs for the first time, by its exit code; one that is
named in `spoil_first` by an output that cannot be read.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Args = dict[str, Any]
Output = dict[str, Any]


def convert(args: Args) -> Output:
    return {"image_list_updates": [_new(args, name) for name in args["names"]]}


def convert_init(args: Args) -> Output:
    return _parallelize((f"{args['zarr_dir']}/{name}", {"name": name}) for name in args["names"])


def convert_compute(args: Args) -> Output:
    name = args["init_args"]["name"]
    return {"image_list_updates": [{"zarr_url": args["zarr_url"], "attributes": {"name": name}}]}


def process(args: Args) -> Output:
    return {"image_list_updates": [{"zarr_url": args["zarr_url"], "attributes": {"processed": 1}}]}


def combine(args: Args) -> Output:
    count = len(args["zarr_urls"])
    updates = [{"zarr_url": url, "attributes": {"combined": count}} for url in args["zarr_urls"]]
    return {"image_list_updates": updates}


def copy_init(args: Args) -> Output:
    return _parallelize((f"{url}_copy", {"origin": url}) for url in args["zarr_urls"])


def copy_compute(args: Args) -> Output:
    origin = args["init_args"]["origin"]
    return {"image_list_updates": [{"zarr_url": args["zarr_url"], "origin": origin}]}


KINDS: dict[str, Callable[[Args], Output]] = {
    function.__name__: function
    for function in (
        convert,
        convert_init,
        convert_compute,
        process,
        combine,
        copy_init,
        copy_compute,
    )
}


def _new(args: Args, name: str) -> Output:
    return {"zarr_url": f"{args['zarr_dir']}/{name}", "attributes": {"name": name}}


def _parallelize(items: Any) -> Output:
    return {"parallelization_list": [{"zarr_url": url, "init_args": own} for url, own in items]}


def ran(journal: Path, kind: str, unit: str) -> bool:
    """Whether this unit has begun before."""
    lines = map(json.loads, journal.read_text().splitlines())
    return any((line["kind"], line["unit"]) == (kind, unit) for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--args-json", type=Path, required=True)
    parser.add_argument("--out-json", type=Path, required=True)
    options = parser.parse_args()
    args = json.loads(options.args_json.read_text())
    path = Path(args["journal"])
    unit = args.get("zarr_url", "all")

    def note(event: str) -> None:
        line = {"event": event, "kind": options.kind, "unit": unit}
        with path.open("a") as journal:  # one write, which appends as a whole
            journal.write(json.dumps(line | {"pid": os.getpid(), "at": time.time()}) + "\n")

    name, is_first = Path(unit).name, not ran(path, options.kind, unit)
    note("begin")
    kept = bytearray(args.get("megabytes", {}).get(name, 0) << 20)
    time.sleep(args.get("seconds", 0))
    while "until" in args and not Path(args["until"]).exists():
        time.sleep(0.05)
    if is_first and name in args.get("spoil_first", ()):
        options.out_json.write_text("spoilt")
        return 0
    if is_first and name in args.get("fail_first", ()):
        print("this unit fails when it runs for the first time")
        return 1
    del kept
    output = KINDS[options.kind](args)
    options.out_json.write_text(json.dumps(output))
    note("end")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
