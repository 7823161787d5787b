"""A Fractal task that does what its arguments say: the same on every server.

The argument `do` has what to do by the name of the image, the last part of its URL; what is called
"" is for all other images, and for units that have none.
"""

import json
import sys
from pathlib import Path


def main(arguments: dict, output: Path) -> int:
    do = arguments.get("do") or {}
    name = arguments.get("zarr_url", "").rstrip("/").rsplit("/", 1)[-1]
    action = do.get(name, do.get("")) or {}
    print(action.get("log", "done"))
    if "text" in action:
        output.write_text(action["text"])
    elif "output" in action:
        output.write_text(json.dumps(action["output"]))
    return action.get("exit", 0)


if __name__ == "__main__":
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    given = json.loads(Path(options["--args-json"]).read_text())
    sys.exit(main(given, Path(options["--out-json"])))
