import pytest
from pydantic import TypeAdapter, ValidationError

from fractal_models.images import (
    ImageError,
    InvalidZarrUrl,
    SingleImage,
    SingleImageUpdate,
    normalize_url,
)


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("/data/plate.zarr/B/03/0", "/data/plate.zarr/B/03/0"),
        ("/data/plate.zarr/", "/data/plate.zarr"),
        ("/data/plate.zarr///", "/data/plate.zarr"),
        ("  /data/plate.zarr ", "/data/plate.zarr"),
        ("//data//plate.zarr/./B", "/data/plate.zarr/B"),
        ("/data/plate.zarr/.", "/data/plate.zarr"),
        ("/data/.hidden/...", "/data/.hidden/..."),
        ("/data/a..b", "/data/a..b"),
        ("s3://bucket/key/", "s3://bucket/key"),
        ("s3://bucket//key", "s3://bucket//key"),
        ("https://host/plate.zarr", "https://host/plate.zarr"),
    ],
)
def test_a_zarr_url_has_one_spelling(given: str, normal: str) -> None:
    assert normalize_url(given) == normal
    assert normalize_url(normal) == normal
    assert SingleImage(zarr_url=given, origin=given).model_dump() == {
        "zarr_url": normal,
        "origin": normal,
        "attributes": {},
        "types": {},
    }


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("", "names no image"),
        ("   ", "names no image"),
        ("/", "names no image"),
        ("/.", "names no image"),
        ("s3://", "names no image"),
        ("data/plate.zarr", "absolute path"),
        ("C:/data", "absolute path"),
        ("/data/../etc", r"'\.\.' segment"),
        ("/data/..", r"'\.\.' segment"),
        ("s3://bucket/../other", r"'\.\.' segment"),
        ("/data/\0", "NUL"),
        ("/" + 2000 * "a", "2000 bytes"),
        ("/" + 700 * "\N{SNOWMAN}", "2000 bytes"),
    ],
)
def test_an_unusable_zarr_url_is_refused(given: str, told: str) -> None:
    with pytest.raises(InvalidZarrUrl, match=told):
        normalize_url(given)
    with pytest.raises(ValidationError):
        SingleImage(zarr_url=given)


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
        ({"types": {"t": "maybe"}}, "valid boolean"),
        ({"types": {"t": None}}, "valid boolean"),
        ({"types": {"": True}}, "unusable key ''"),
        ({"origin": ""}, "at least 1 character"),
        ({"path": "/a"}, "Extra inputs"),
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


def test_an_update_may_drop_an_attribute_but_not_a_type() -> None:
    update = SingleImageUpdate(zarr_url="/a", attributes={"well": None})
    assert update.attributes == {"well": None}
    assert update.types is None
    with pytest.raises(ValidationError):
        SingleImageUpdate.model_validate({"zarr_url": "/a", "types": {"3D": None}})


def test_errors_of_images_are_value_errors() -> None:
    assert issubclass(InvalidZarrUrl, ImageError)
    assert issubclass(ImageError, ValueError)


def test_the_json_schema_of_an_image_is_the_contracts() -> None:
    schema = TypeAdapter(SingleImage).json_schema()
    scalars = [{"type": name} for name in ("integer", "number", "string", "boolean")]
    assert schema["required"] == ["zarr_url"]
    properties = schema["properties"]
    assert properties["zarr_url"]["minLength"] == 1
    assert properties["origin"]["anyOf"] == [{"minLength": 1, "type": "string"}, {"type": "null"}]
    assert properties["attributes"]["additionalProperties"] == {"anyOf": scalars}
    assert properties["types"]["additionalProperties"] == {"type": "boolean"}
