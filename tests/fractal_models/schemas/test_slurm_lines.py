import pytest

from fractal_models.schemas.slurm_lines import checked_line, is_directive


@pytest.mark.parametrize(
    "line",
    [
        "#SBATCH --qos=high",
        "#SBATCH --mem-bind=local",
        "#SBATCH --exclusive --hint=nomultithread",
        "#SBATCH --time-min=10 --gres-flags=enforce-binding",
        "#SBATCH --licenses 'matlab:1'",
        "#SBATCH -k",
        "#SBATCH --nice -- --mem=4G",
        "# SBATCH --mem=4G",
        "module load cuda  # --mem=4G",
        "\tulimit -c 0",
        "echo 'not closed \\",
    ],
)
def test_lines_that_concern_no_field_are_kept(line: str) -> None:
    assert checked_line(line) == line


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("#SBATCH --mem=4G", "sets --mem: use mem instead"),
        ("#SBATCH --mem 4G", "sets --mem: use mem instead"),
        ("#SBATCH --mem-per-cpu=4G", "sets --mem-per-cpu: use mem and use_mem_per_cpu instead"),
        ("#SBATCH --cpus-per-task=2", "use cpus_per_task instead"),
        ("#SBATCH -c2", "sets -c: use cpus_per_task instead"),
        ("#SBATCH -c 2", "sets -c: use cpus_per_task instead"),
        ("#SBATCH -kc2", "sets -c: use cpus_per_task instead"),
        ("#SBATCH\t--time=1", "use time instead"),
        ("#SBATCH --qos=high --part=gpu", "sets --partition: use partition instead"),
        ("#SBATCH '--acc=lab'", "sets --account: use account instead"),
        ('#SBATCH -"A" lab', "sets -A: use account instead"),
        ("#SBATCH --qos=high # --gres=gpu:1", "sets --gres"),
        ("#SBATCH --array=0-3", "sets --array: it is for the platform alone, remove it"),
        ("#SBATCH -J name", "sets -J: it is for the platform alone"),
        ("#SBATCH --out=x", "sets --output: it is for the platform alone"),
        ("#SBATCH --ntasks=4", "sets --ntasks: it is for the platform alone"),
        ("#SBATCH", "without backslashes"),
        ("#SBATCH--mem=4G", "'#SBATCH --option=value'"),
        ("#SBATCH '--\\mem=4G'", "without backslashes"),
        ("#SBATCH --qos='high", "No closing quotation"),
        ("#SBATCH --qos=high\n#SBATCH --mem=4G", "line break"),
        ("echo\rrm", "control character"),
    ],
)
def test_a_line_that_sets_what_others_set_is_refused(line: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        checked_line(line)


def test_sbatch_reads_options_from_lines_that_begin_so() -> None:
    assert is_directive("#SBATCH --qos=high")
    assert not is_directive("# SBATCH --qos=high")
