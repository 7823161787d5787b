import pytest
from pydantic import ValidationError

from fractal_models.images import (
    SingleImage,
    SingleImageUpdate,
)


def test_an_image_has_one_spelling_of_its_urls() -> None:
    image = SingleImage(zarr_url=" //data/./plate.zarr/ ", origin="s3://bucket/key/")

    assert image.model_dump() == {
        "zarr_url": "/data/plate.zarr",
        "origin": "s3://bucket/key",
        "attributes": {},
        "types": {},
    }


@pytest.mark.parametrize("url", ["", "  ", "/", "/.", "s3://", "data", "https://host/a", "/a/../b"])
def test_an_unusable_zarr_url_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        SingleImage(zarr_url=url)


@pytest.mark.parametrize("value", [0, 1, -3, 0.0, 1.0, 2.5, "", "1", "true", True, False])
def test_an_attribute_keeps_value_and_type(value: object) -> None:
    read: list[SingleImage | SingleImageUpdate] = [
        SingleImage.model_validate({"zarr_url": "/a", "attributes": {"k": value}}),
        SingleImage.model_validate_json(
            SingleImage(zarr_url="/a", attributes={"k": value}).model_dump_json()
        ),
        SingleImageUpdate.model_validate({"zarr_url": "/a", "attributes": {"k": value}}),
    ]
    for image in read:
        assert image.attributes is not None
        assert image.attributes["k"] == value
        assert type(image.attributes["k"]) is type(value)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"attributes": {"k": None}}, "not null"),
        ({"attributes": {"k": [1]}}, "not an array"),
        ({"attributes": {"k": {}}}, "not an object"),
        ({"attributes": {"k": float("nan")}}, "finite"),
        ({"attributes": {"k": float("-inf")}}, "finite"),
        ({"attributes": {"k": "a\0b"}}, "NUL"),
        ({"attributes": {" ": 1}}, "unusable key ' '"),
        ({"attributes": {"k\0": 1}}, "unusable key"),
        ({"attributes": {"k": 1, " k": 1}}, "'k' twice"),
        ({"attributes": {1: 1}}, "valid string"),
        ({"attributes": []}, "valid dictionary"),
        ({"types": {"t": 2}}, "valid boolean"),
        ({"types": {"t": "3D"}}, "valid boolean"),
        ({"types": {"t": None}}, "valid boolean"),
        ({"types": {"": True}}, "unusable key ''"),
        ({"origin": ""}, "at least 1 character"),
    ],
)
def test_an_invalid_image_is_refused(fields: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told) as caught:
        SingleImage.model_validate({"zarr_url": "/a", **fields})
    assert caught.value.error_count() == 1


def test_keys_are_stripped() -> None:
    image = SingleImage(zarr_url="/a", attributes={" well ": "A"}, types={"3D ": True})
    assert image.attributes == {"well": "A"}
    assert image.types == {"3D": True}


def test_types_are_what_can_be_read_as_booleans() -> None:
    image = SingleImage.model_validate({"zarr_url": "/a", "types": {"3D": "true", "dark": 0}})

    assert image.types == {"3D": True, "dark": False}


@pytest.mark.parametrize("changes", [{"attributes": None}, {"attributes": {"well": None}}])
def test_an_update_has_values(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SingleImageUpdate.model_validate({"zarr_url": "/a", **changes})
