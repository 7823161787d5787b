import json

import pytest

from fractal_models.images import (
    ImageListUpdate,
    InitOutput,
    InvalidTaskOutput,
    ParallelizationItem,
    TaskOutput,
    parse_init_output,
    parse_task_output,
)


@pytest.mark.parametrize("text", [None, "null", b"null", " null\n", "{}"])
def test_no_output_is_an_empty_one(text: str | bytes | None) -> None:
    assert parse_task_output(text) == TaskOutput()
    assert parse_init_output(text) == InitOutput()


def test_a_full_task_output_is_read() -> None:
    text = json.dumps(
        {
            "image_list_updates": [
                {
                    "zarr_url": "/data/a/",
                    "origin": "/data/b",
                    "attributes": {"well ": "A01", "n": 1, "x": 1.0, "ok": True, "gone": None},
                    "types": {"is_3D": False},
                },
                {"zarr_url": "/data/c", "origin": None, "attributes": None, "types": None},
            ],
            "image_list_removals": ["/data/d/"],
        }
    )
    expected = TaskOutput(
        image_list_updates=[
            ImageListUpdate(
                zarr_url="/data/a",
                origin="/data/b",
                attributes={"well": "A01", "n": 1, "x": 1.0, "ok": True, "gone": None},
                types={"is_3D": False},
            ),
            ImageListUpdate(zarr_url="/data/c"),
        ],
        image_list_removals=["/data/d"],
    )
    assert repr(parse_task_output(text)) == repr(expected)
    assert repr(parse_task_output(text.encode())) == repr(expected)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(True, True), (1, True), ("true", True), ("yes", True), (0.0, False), ("off", False)],
)
def test_types_are_what_pydantic_reads_as_booleans(given: object, expected: bool) -> None:
    text = json.dumps({"image_list_updates": [{"zarr_url": "/a", "types": {"t": given}}]})
    [read] = parse_task_output(text).image_list_updates
    assert read.types is not None
    assert read.types["t"] is expected


def test_numbers_are_kept_as_they_came() -> None:
    numbers = {"whole": 10**25, "real": 1.0, "large": 1e25, "negative": -(2**70)}
    update = {"image_list_updates": [{"zarr_url": "/a", "attributes": numbers}]}
    item = {"parallelization_list": [{"zarr_url": "/a", "init_args": numbers}]}
    [updated] = parse_task_output(json.dumps(update)).image_list_updates
    [planned] = parse_init_output(json.dumps(item)).parallelization_list
    assert repr(updated.attributes) == repr(planned.init_args) == repr(numbers)


def test_a_parallelization_list_is_read() -> None:
    items = '{"zarr_url": "/a/", "init_args": {"x": [1, null]}}, {"zarr_url": "/a"}'
    assert parse_init_output(f'{{"parallelization_list": [{items}]}}') == InitOutput(
        parallelization_list=[
            ParallelizationItem(zarr_url="/a", init_args={"x": [1, None]}),
            ParallelizationItem(zarr_url="/a", init_args={}),
        ]
    )


def update(**fields: object) -> dict[str, object]:
    return {"image_list_updates": [{"zarr_url": "/a"}, {"zarr_url": "/b", **fields}]}


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ([], "Input should be an object."),
        ({"images": []}, "images: unknown field; allowed here are image_list_updates, image_list_"),
        (update(path="/b"), "image_list_updates[1].path: unknown field; allowed here are zarr_url"),
        (update(zarr_url="b"), "image_list_updates[1].zarr_url: 'b' must be an absolute path"),
        (update(zarr_url=None), "image_list_updates[1].zarr_url: Input should be a valid string"),
        (update(origin="b"), "image_list_updates[1].origin: 'b' must be an absolute path"),
        (update(attributes={"w": []}), "image_list_updates[1].attributes.w: must be a number"),
        (
            update(attributes={"w": float("nan")}),
            "image_list_updates[1].attributes.w: must be a fi",
        ),
        (update(attributes={"w": 1, "w ": 2}), "image_list_updates[1].attributes: has the key 'w'"),
        (update(types={"t": None}), "image_list_updates[1].types.t: Input should be a valid boo"),
        (update(types={"t": 2}), "image_list_updates[1].types.t: Input should be a valid boolean"),
        ({"image_list_updates": [{}]}, "image_list_updates[0].zarr_url: Field required"),
        ({"image_list_updates": None}, "image_list_updates: Input should be a valid array"),
        ({"image_list_removals": ["/a", 3]}, "image_list_removals[1]: Input should be a valid str"),
        ({"image_list_removals": ["/a/../b"]}, "image_list_removals[0]: '/a/../b' contains a '..'"),
    ],
)
def test_an_invalid_task_output_is_told_with_its_place(output: object, told: str) -> None:
    with pytest.raises(InvalidTaskOutput) as caught:
        parse_task_output(json.dumps(output))
    assert f"The task's output is invalid: {told}" in str(caught.value)


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (
            {"image_list_updates": []},
            "image_list_updates: unknown field; allowed here are parallel",
        ),
        (
            {"parallelization_list": [{"zarr_url": "/a", "args": {}}]},
            "parallelization_list[0].args: unknown field; allowed here are zarr_url, init_args",
        ),
        (
            {"parallelization_list": [{"zarr_url": "/a", "init_args": None}]},
            "parallelization_list[0].init_args: Input should be an object",
        ),
        (
            {"parallelization_list": [{"zarr_url": "/a", "init_args": {"x": [float("nan")]}}]},
            "parallelization_list[0].init_args: nan is no number that JSON has in x[0]",
        ),
        ({"parallelization_list": [{}]}, "parallelization_list[0].zarr_url: Field required"),
    ],
)
def test_an_invalid_init_output_is_told_with_its_place(output: object, told: str) -> None:
    with pytest.raises(InvalidTaskOutput) as caught:
        parse_init_output(json.dumps(output))
    assert f"The task's output is invalid: {told}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("{", "Invalid JSON: EOF"),
        ('{\n"image_list_updates": [,]}', "line 2 column 24"),
        ("{'image_list_updates': []}", "line 1 column 2"),
        (b"\xff\xfe", "Invalid JSON"),
    ],
)
def test_output_that_is_not_json_is_told_with_its_position(text: str | bytes, told: str) -> None:
    with pytest.raises(InvalidTaskOutput, match=told):
        parse_task_output(text)


def test_of_many_problems_the_first_are_told_and_the_rest_counted() -> None:
    text = json.dumps({"image_list_removals": list(range(1000))})
    with pytest.raises(InvalidTaskOutput, match=r"removals\[4\]: .*; and 995 more\.") as caught:
        parse_task_output(text)
    assert "removals[5]" not in str(caught.value)
