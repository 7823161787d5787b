"""What every task does: read its arguments, do its work, write its output."""

import argparse
import json
from pathlib import Path


def run(function):
    parser = argparse.ArgumentParser()
    parser.add_argument("--args-json", required=True)
    parser.add_argument("--out-json", required=True)
    options = parser.parse_args()
    output = function(**json.loads(Path(options.args_json).read_text()))
    if output is not None:
        text = output if isinstance(output, str) else json.dumps(output)
        Path(options.out_json).write_text(text)
