"""What a cluster's partitions offer is read, and compared with what is asked for."""

from typing import Any

import pytest

from flows.launchers.slurm.partitions import misfits, parse_partitions
from flows.launchers.slurm.script import SlurmRequest
from fractal_models.schemas.slurm import slurm_seconds

ANSWER = """\
Welcome to the cluster
fractal-partition|main*|up|2-00:00:00|64000+|16+|(null)|.
fractal-partition|main*|up|2-00:00:00|256000|32|(null)|.
fractal-partition|gpu|up|infinite|128000|16|gpu:a100:4|.
fractal-partition|odd|up|n/a|1000|1|(null)|.
fractal-partition|old|down|30:00|64000|16|(null)|.
fractal-partition|broken|up|
"""


def test_a_partition_has_the_most_that_its_nodes_have() -> None:
    found = parse_partitions(ANSWER)

    assert found.keys() == {"main", "gpu", "odd", "old"}
    main = found["main"]
    assert (main.cpus, main.mem, main.max_seconds) == (32, 256_000, 2 * 86_400)
    assert [name for name, each in found.items() if each.is_default] == ["main"]
    assert [name for name, each in found.items() if each.has_gpus] == ["gpu"]
    assert [name for name, each in found.items() if not each.is_up] == ["old"]
    assert found["gpu"].max_seconds is found["odd"].max_seconds is None


@pytest.mark.parametrize(
    ("asked", "at_once", "told"),
    [
        ({}, 4, []),
        ({"mem": 250_000}, 1, []),
        ({"mem": 250_000}, 2, ["488 GB of memory for 2 units at once"]),
        ({"cpus_per_task": 33}, 1, ["33 CPUs, but the largest node of partition main has 32"]),
        ({"time": "3-0"}, 1, ["3 d of time, but partition main allows 2 d"]),
        ({"partition": "gpu", "time": "99-0"}, 1, []),
        ({"partition": "none"}, 1, ["no partition none: choose one of gpu, main, odd, old"]),
        ({"partition": "old"}, 1, ["Partition old is not up"]),
        ({"partition": "old,main"}, 1, []),
        ({"gpus": "1"}, 1, ["asks for a GPU, but partition main has none"]),
        ({"partition": "gpu", "gres": "gpu:1"}, 1, []),
    ],
)
def test_a_request_is_compared_with_its_partition(
    asked: dict[str, Any], at_once: int, told: list[str]
) -> None:
    found = misfits(SlurmRequest(**asked), at_once, parse_partitions(ANSWER))

    assert len(found) == len(told)
    assert all(words in sentence for words, sentence in zip(told, found, strict=True))


def test_without_an_answer_nothing_is_compared() -> None:
    assert misfits(SlurmRequest(partition="none", mem=10**9), 9, {}) == []


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        ("90", 5400),
        ("1:30", 90),
        ("2:00:00", 7200),
        ("1-12", 129_600),
        ("1-12:30", 131_400),
        ("0-00:00:05", 5),
    ],
)
def test_a_time_limit_is_a_number_of_seconds(limit: str, seconds: int) -> None:
    assert slurm_seconds(limit) == seconds
