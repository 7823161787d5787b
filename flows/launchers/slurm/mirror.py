"""Copies what a batch does on a cluster into its folder here.

What arrives may be hostile, because units run as the user who sends it. So only files that this
batch must have are accepted, and only up to the size that they can have.
"""

from collections.abc import Mapping
from pathlib import Path

from flows.launchers.slurm.state import SlurmState
from flows.process.transport import AnswerError
from flows.reports.quantities import count
from flows.units.batch import BegunBatch
from flows.units.files import naming, write_whole
from flows.units.results import RESULTS_FILE, ResultsReader

_TELLS = 100  # characters of what a cluster answered
# Limits of a results file. A result has about 300 bytes and the text of an error.
_RESULTS_BYTES = 1024 * 1024
_UNIT_BYTES = 16 * 1024


class Part:
    """A part of a batch: its folder on the cluster, as far as it is mirrored here.

    `units` has the names of its units by their indexes, `missing` the indexes without a result yet.
    """

    def __init__(self, number: int, folder: Path, units: Mapping[int, str]) -> None:
        self.number = number
        self.folder = folder / f"{number:06d}"
        self.units = units
        self.missing = dict.fromkeys(units)
        self.reader = ResultsReader(self.folder / RESULTS_FILE, units)
        self.most_bytes = _RESULTS_BYTES + len(units) * _UNIT_BYTES
        self.offset = _whole_lines(self.reader.path)

    def append(self, lines: bytes) -> None:
        """Add new results to the mirrored file.

        Raises:
            AnswerError: the results are larger than the part's units can produce.
        """
        path = self.reader.path
        if self.offset + len(lines) > self.most_bytes:
            raise AnswerError(
                f"The cluster answers more than {self.most_bytes} bytes of results for {path}, "
                f"which are of {count(len(self.units), 'unit')}."
            )
        with naming(path):
            self.folder.mkdir(exist_ok=True)
            with path.open("ab") as file:
                file.write(lines)
        self.offset += len(lines)


class Mirror:
    """The folder of a batch here, with the parts into which the batch was split."""

    def __init__(self, folder: Path, units_dir: Path, begun: BegunBatch, state: SlurmState) -> None:
        units = list(begun.names.items())
        self.parts = [
            Part(number, folder, dict(part)) for number, part in enumerate(state.split(units))
        ]
        self._units_dir = units_dir
        self._names = frozenset(begun.names.values())
        self._endings = (".log", ".out.json", f".attempt-{begun.attempt - 1}.log")

    def take(self, found: Mapping[str, bytes], parts: Mapping[int, Part]) -> None:
        """Write what the cluster sent about some parts, but only files that this batch must have.

        Raises:
            AnswerError: the cluster sent another file, and nothing was written.
        """
        results = {f"results/{number}": part for number, part in parts.items()}
        for name in found:
            if name not in results and not self._is_file_of_unit(name):
                raise AnswerError(
                    f"The cluster answers with a file {name[:_TELLS]!r}, which this job has not."
                )
        for name, content in found.items():
            if name in results:
                results[name].append(content)
            else:
                write_whole(self._units_dir / name.removeprefix("units/"), content)

    def _is_file_of_unit(self, name: str) -> bool:
        """Whether a unit of this batch has a file with this name."""
        kind, _, file = name.partition("/")
        return kind == "units" and any(
            file.endswith(ending) and file.removesuffix(ending) in self._names
            for ending in self._endings
        )


def _whole_lines(path: Path) -> int:
    """The size of a mirrored file, after removing a last line that a crash has cut."""
    if not path.exists():
        return 0
    content = path.read_bytes()
    size = content.rfind(b"\n") + 1
    if size < len(content):
        with path.open("r+b") as file:
            file.truncate(size)
    return size
