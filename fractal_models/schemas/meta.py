"""The parts of a workflow task's `meta` that every resource reads: how its units run, and again."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from fractal_models.schemas.base import JsonFields, JsonObject, problems_of


class Retry(BaseModel):
    """Failed units run up to `max` times more, `delay_seconds` after all others have ended.

    On a SLURM cluster, units that ran out of memory get `mem_factor` times as much in each further
    attempt. On a local resource `mem_factor` has no effect, because units share the memory of the
    machine.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    max: int = Field(default=0, ge=0, le=100)
    delay_seconds: float = Field(default=0.0, ge=0, le=86_400)
    mem_factor: float | None = Field(default=None, ge=1, le=16)


def retry_of(meta: dict[str, Any]) -> Retry:
    """The `retry` of a `meta_parallel` or `meta_non_parallel`.

    Raises:
        ValueError: it is not valid; the message says why.
    """
    try:
        return Retry.model_validate(meta.get("retry", {}))
    except ValidationError as error:
        problems = problems_of(error, "retry")
        raise ValueError(f'{problems}. Write e.g. {{"max": 2, "delay_seconds": 5}}') from None


# Whether imports are made once for many units: where that is safe, or never.
WarmUnits = Literal["auto", "off"]
# Kept only where it was chosen: other servers and clients do not know it.
WarmUnitsOfResource = Annotated[
    WarmUnits,
    Field(
        description="Import once for many units: where that is safe, or never",
        exclude_if=lambda value: value == "auto",
    ),
]


def warm_units_of(meta: dict[str, Any]) -> WarmUnits:
    """The `warm_units` of a `meta_parallel` or `meta_non_parallel`.

    Raises:
        ValueError: it is not valid; the message says why.
    """
    said = meta.get("warm_units", "auto")
    if said not in ("auto", "off"):
        raise ValueError(f'warm_units is {said!r}: write "auto" or "off"')
    return "off" if said == "off" else "auto"


def _checked(meta: JsonObject) -> JsonObject:
    retry_of(meta)
    warm_units_of(meta)
    return meta


Meta = Annotated[JsonFields, AfterValidator(_checked)]
