"""A stack that runs tells those who watch it what it does."""

from prometheus_client.parser import text_string_to_metric_families

from tests.lab import Lab, eventually


async def metrics(lab: Lab) -> dict[tuple[str, frozenset[str]], float]:
    """The values of metrics, by their names and the values of their labels."""
    text = (await lab.client.get("/metrics")).text
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_jobs_and_units_are_counted_and_workers_give_signs_of_life(lab: Lab) -> None:
    def ended(what: str, *labels: str) -> tuple[str, frozenset[str]]:
        return f"fractal_{what}_ended_total", frozenset({"local", *labels})

    done, failed = ended("units", "done", ""), ended("units", "failed", "exit code")
    jobs = ended("jobs", "done"), ended("jobs", "failed")
    before = await metrics(lab)

    well = await lab.run(await lab.workflow("Process"), await lab.dataset("A", "B", "C"))
    wrong = await lab.run(
        await lab.workflow(("Process", {"args_parallel": {"fail_on": ["B"]}})),
        await lab.dataset("A", "B"),
    )
    assert (well["status"], wrong["status"]) == ("done", "failed")

    after = await metrics(lab)
    grown = {key: after[key] - before.get(key, 0) for key in (done, failed, *jobs)}
    assert grown == {done: 4, failed: 1, jobs[0]: 1, jobs[1]: 1}
    for part in ("worker", "reconciler"):
        key = "fractal_silence_seconds", frozenset({"local", part})
        await eventually(lambda: metrics(lab), lambda seen, key=key: seen.get(key, 99) < 10)

    health = await lab.client.get("/api/health/")
    assert (health.status_code, health.json()["ok"]) == (200, True), health.text
