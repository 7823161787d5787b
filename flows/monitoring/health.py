"""Whether all parts of an installation are well, in words for people."""

from pydantic import BaseModel

from flows.monitoring.observation import Observation

_LONGEST_SILENCE = 60.0  # seconds
_LEAST_FREE = 0.05  # of a file system


class Part(BaseModel):
    """A part of the installation; `state` says how it is, for people."""

    name: str
    ok: bool
    state: str


class Health(BaseModel):
    ok: bool
    parts: list[Part]


def health_of(seen: Observation) -> Health:
    """How all parts are that can be seen."""
    parts = [
        Part(name="database", ok=seen.facts is not None, state=_answers(seen.facts is not None)),
        Part(name="prefect", ok=seen.prefect_answers, state=_answers(seen.prefect_answers)),
        *_workers(seen),
        *_folders(seen),
    ]
    return Health(ok=all(part.ok for part in parts), parts=parts)


def _answers(does: bool) -> str:
    return "answers" if does else "does not answer"


def _workers(seen: Observation) -> list[Part]:
    if seen.facts is None:
        return []
    known = {each.resource for each in seen.facts.silences}
    never = [each.resource for each in seen.facts.open_jobs if each.resource not in known]
    return [
        *(
            Part(
                name=f"{each.part} of {each.resource}",
                ok=each.seconds < _LONGEST_SILENCE,
                state=f"did its work {max(0.0, each.seconds):.0f} s ago",
            )
            for each in seen.facts.silences
        ),
        *(Part(name=f"worker of {name}", ok=False, state="has never run") for name in never),
    ]


def _folders(seen: Observation) -> list[Part]:
    return [
        Part(name=folder, ok=False, state="cannot be reached")
        if space is None
        else Part(
            name=folder,
            ok=space.free >= _LEAST_FREE * space.size,
            state=f"{space.free / 2**30:.1f} of {space.size / 2**30:.1f} GiB are free",
        )
        for folder, space in seen.spaces.items()
    ]
