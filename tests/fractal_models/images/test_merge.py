import copy
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fractal_models.images import (
    Image,
    ImageListError,
    ImageListUpdate,
    MergeResult,
    TaskOutput,
    merge_images,
    named_images,
)

DIR = "/data/zarr"
A, B, C, NEW = (f"{DIR}/{name}" for name in ("a", "b", "c", "new"))


def image(
    url: str, attributes: dict[str, Any], types: dict[str, bool], origin: str | None = None
) -> Image:
    return {"zarr_url": url, "origin": origin, "attributes": attributes, "types": types}


IMAGES = [
    image(A, {"well": "A01", "n": 1}, {"is_3D": True}),
    image(B, {"well": "A02"}, {"is_3D": True, "raw": True}, origin="/elsewhere"),
    image(C, {}, {}),
]


def updates(*items: dict[str, Any]) -> TaskOutput:
    return TaskOutput(image_list_updates=[ImageListUpdate(**item) for item in items])


def removals(*urls: str) -> TaskOutput:
    return TaskOutput(image_list_removals=list(urls))


def merge(
    *outputs: TaskOutput,
    images: list[Image] = IMAGES,
    given_urls: Iterable[str] = (),
    output_types: dict[str, bool] | None = None,
) -> MergeResult:
    return merge_images(
        images,
        outputs,
        input_images=[each for each in images if each["zarr_url"] in set(given_urls)],
        zarr_dir=DIR,
        output_types=output_types or {},
    )


def urls(images: Iterable[Image]) -> list[str]:
    return [each["zarr_url"] for each in images]


@pytest.mark.parametrize(
    ("update", "output_types", "expected"),
    [
        pytest.param({"zarr_url": A}, {}, IMAGES[0], id="nothing said, nothing changed"),
        pytest.param(
            {"zarr_url": A, "attributes": {"n": 2, "x": 1.5}, "types": {"seg": True}},
            {},
            image(A, {"well": "A01", "n": 2, "x": 1.5}, {"is_3D": True, "seg": True}),
            id="fields are set, the others stay",
        ),
        pytest.param(
            {"zarr_url": A, "attributes": {"n": None, "never_there": None}},
            {},
            image(A, {"well": "A01"}, {"is_3D": True}),
            id="null drops an attribute",
        ),
        pytest.param(
            {"zarr_url": A, "types": {"is_3D": True, "seg": False}},
            {"is_3D": False, "seg": True},
            image(A, {"well": "A01", "n": 1}, {"is_3D": False, "seg": True}),
            id="the task's output types have the last word",
        ),
        pytest.param(
            {"zarr_url": A, "origin": A, "types": {"seg": True}},
            {},
            image(A, {"well": "A01", "n": 1}, {"is_3D": True, "seg": True}),
            id="an image that is its own origin starts from itself",
        ),
        pytest.param(
            {"zarr_url": A, "origin": B, "attributes": {"x": 1}},
            {},
            image(A, {"well": "A02", "x": 1}, {"is_3D": True, "raw": True}, origin=B),
            id="another origin replaces what the image had",
        ),
        pytest.param(
            {"zarr_url": B, "origin": "/gone", "attributes": {"x": 1}},
            {"seg": True},
            image(B, {"x": 1}, {"seg": True}, origin="/gone"),
            id="an origin that is not in the list leaves nothing to start from",
        ),
        pytest.param(
            {"zarr_url": B, "types": {"seg": True}},
            {},
            image(B, {"well": "A02"}, {"is_3D": True, "raw": True, "seg": True}, "/elsewhere"),
            id="an update without an origin leaves that of the image",
        ),
        pytest.param(
            {"zarr_url": B, "origin": B},
            {},
            IMAGES[1],
            id="an image that is its own origin keeps the one that it has",
        ),
    ],
)
def test_an_update_of_a_known_url_edits_the_image(
    update: dict[str, Any], output_types: dict[str, bool], expected: Image
) -> None:
    result = merge(updates(update), output_types=output_types)
    url = update["zarr_url"]
    assert result.images == [expected if each["zarr_url"] == url else each for each in IMAGES]
    assert (result.added, result.updated, result.removed) == ([], [url], [])


@pytest.mark.parametrize(
    ("update", "output_types", "expected"),
    [
        pytest.param({"zarr_url": NEW}, {}, image(NEW, {}, {}), id="bare"),
        pytest.param(
            {"zarr_url": NEW, "attributes": {"well": "B", "x": None}, "types": {"t": False}},
            {"u": True},
            image(NEW, {"well": "B"}, {"t": False, "u": True}),
            id="without origin",
        ),
        pytest.param(
            {"zarr_url": NEW, "origin": A, "attributes": {"n": None}, "types": {"t": True}},
            {"is_3D": False},
            image(NEW, {"well": "A01"}, {"is_3D": False, "t": True}, origin=A),
            id="starting from its origin",
        ),
        pytest.param(
            {"zarr_url": NEW, "origin": "/gone", "attributes": {"x": 1}, "types": {"t": True}},
            {"u": True},
            image(NEW, {"x": 1}, {"t": True, "u": True}, origin="/gone"),
            id="an origin that is not in the list is kept as told",
        ),
        pytest.param(
            {"zarr_url": NEW, "origin": NEW}, {}, image(NEW, {}, {}, NEW), id="its own origin"
        ),
        pytest.param(
            {"zarr_url": f"{DIR}/deep/down/0"},
            {},
            image(f"{DIR}/deep/down/0", {}, {}),
            id="deep below zarr_dir",
        ),
    ],
)
def test_an_update_of_a_new_url_adds_an_image_at_the_end(
    update: dict[str, Any], output_types: dict[str, bool], expected: Image
) -> None:
    result = merge(updates(update), output_types=output_types)
    assert result.images == [*IMAGES, expected]
    assert (result.added, result.updated, result.removed) == ([expected["zarr_url"]], [], [])
    assert result.num_new == 1


def test_new_images_are_appended_as_they_first_appear() -> None:
    new = [f"{DIR}/{name}" for name in "zxy"]
    first, second, third = ({"zarr_url": url} for url in new)
    result = merge(updates(first, {"zarr_url": B}), updates(second, first), updates(third))
    assert urls(result.images) == [A, B, C, *new]
    assert result.added == new


def test_removed_images_go_and_the_rest_keeps_its_order() -> None:
    result = merge(removals(B), removals(B), updates({"zarr_url": C}))
    assert urls(result.images) == [A, C]
    assert (result.added, result.updated, result.removed) == ([], [C], [B])


def test_an_image_may_replace_its_origin() -> None:
    result = merge(updates({"zarr_url": NEW, "origin": A}), removals(A))
    assert result.images[-1] == image(NEW, {"well": "A01", "n": 1}, {"is_3D": True}, origin=A)
    assert urls(result.images) == [B, C, NEW]


def test_an_origin_counts_as_it_was_before_the_task() -> None:
    change = {"zarr_url": A, "attributes": {"well": "changed"}}
    child = {"zarr_url": NEW, "origin": A}
    for outputs in ([updates(change), updates(child)], [updates(child), updates(change)]):
        assert merge(*outputs).images[-1]["attributes"]["well"] == "A01"


@pytest.mark.parametrize("outputs", [[], [TaskOutput()], [TaskOutput(), TaskOutput()]])
def test_without_any_output_every_input_image_gets_the_output_types(
    outputs: list[TaskOutput],
) -> None:
    result = merge(*outputs, given_urls=[C, A], output_types={"is_3D": False, "seg": True})
    assert [each["types"] for each in result.images] == [
        {"is_3D": False, "seg": True},
        {"is_3D": True, "raw": True},
        {"is_3D": False, "seg": True},
    ]
    assert [each["attributes"] for each in result.images] == [each["attributes"] for each in IMAGES]
    assert (result.added, result.updated, result.removed) == ([], [A, C], [])


@pytest.mark.parametrize("output", [updates({"zarr_url": B}), removals(B)])
def test_with_any_output_the_other_input_images_stay(output: TaskOutput) -> None:
    result = merge(TaskOutput(), output, given_urls=[A, B], output_types={"seg": True})
    assert result.images[0] is IMAGES[0]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"attributes": {}, "types": {}}),
        ({"attributes": {"a": 1, "b": "x"}}, {"attributes": {"b": "x", "a": 1}}),
        ({"attributes": {"a": 1}}, {"attributes": {"a": 1.0}}),
        ({"types": {"t": True}, "origin": B}, {"types": {"t": True}, "origin": B}),
    ],
)
def test_updates_that_say_the_same_are_one(first: dict[str, Any], second: dict[str, Any]) -> None:
    once = merge(updates({"zarr_url": A, **first}))
    twice = merge(updates({"zarr_url": A, **first}), updates({"zarr_url": A, **second}))
    assert twice == once
    assert twice.updated == [A]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"attributes": {"a": 1}}, {}),
        ({"attributes": {"a": 1}}, {"attributes": {"a": 2}}),
        ({"attributes": {"a": 1}}, {"attributes": {"a": True}}),
        ({"attributes": {"a": "1"}}, {"attributes": {"a": 1}}),
        ({"attributes": {"a": None}}, {}),
        ({"types": {"t": True}}, {"types": {"t": False}}),
        ({"origin": B}, {"origin": C}),
    ],
)
def test_different_updates_of_an_image_are_an_error(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    one, other = {"zarr_url": A, **first}, {"zarr_url": A, **second}
    for outputs in ([updates(one, other)], [updates(one), updates(other)]):
        with pytest.raises(ImageListError, match=f"{A}.* more than once and differently"):
            merge(*outputs)


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        ([updates({"zarr_url": A}), removals(A)], f"both update and remove '{A}'"),
        ([updates({"zarr_url": NEW}), removals(NEW)], f"both update and remove '{NEW}'"),
        ([removals(A, NEW)], f"remove '{NEW}', not in the dataset's image list"),
        ([updates({"zarr_url": DIR})], f"add '{DIR}', not below"),
        ([updates({"zarr_url": "/data/zarr2/x"})], "add '/data/zarr2/x', not below"),
        ([updates({"zarr_url": "/elsewhere/x"})], "zarr_dir '/data/zarr'"),
        ([updates({"zarr_url": "s3://data/zarr/x"})], "add 's3://data/zarr/x', not below"),
    ],
)
def test_outputs_that_break_a_rule_are_named(outputs: list[TaskOutput], told: str) -> None:
    with pytest.raises(ImageListError) as caught:
        merge(*outputs)
    assert told in str(caught.value)


def test_of_many_offending_urls_the_first_are_named_and_the_rest_counted() -> None:
    with pytest.raises(ImageListError, match=r"'/gone/4' and 95 more, not in"):
        merge(removals(*(f"/gone/{number}" for number in range(100))))


def test_an_image_outside_zarr_dir_can_be_updated_and_removed() -> None:
    images = [image("/elsewhere/a", {}, {}), image("/elsewhere/b", {}, {})]
    output = TaskOutput(
        image_list_updates=[ImageListUpdate(zarr_url="/elsewhere/a", types={"t": True})],
        image_list_removals=["/elsewhere/b"],
    )
    assert merge(output, images=images).images == [image("/elsewhere/a", {}, {"t": True})]


@pytest.mark.parametrize(
    ("zarr_dir", "url"), [("/data/zarr/", "/data/zarr/x"), ("s3://b/zarr", "s3://b/zarr/x")]
)
def test_zarr_dir_may_end_in_a_slash_or_have_a_scheme(zarr_dir: str, url: str) -> None:
    result = merge_images(
        [], [updates({"zarr_url": url})], input_images=[], zarr_dir=zarr_dir, output_types={}
    )
    assert result.added == [url]


def test_two_images_of_one_origin_share_nothing_that_can_change() -> None:
    result = merge(updates({"zarr_url": NEW, "origin": A}))
    result.images[-1]["attributes"]["well"] = "changed"
    result.images[-1]["types"]["is_3D"] = False
    assert result.images[0] == image(A, {"well": "A01", "n": 1}, {"is_3D": True})


names = st.sampled_from("abc")
scalars = st.one_of(st.integers(0, 2), st.booleans(), st.sampled_from(["0", "1"]))
types = st.dictionaries(names, st.booleans())
known_urls = [f"{DIR}/{number}" for number in range(6)]
all_urls = known_urls + [f"{DIR}/new{number}" for number in range(4)]
image_lists = st.tuples(
    *(st.builds(image, st.just(url), st.dictionaries(names, scalars), types) for url in known_urls)
).map(list)


@st.composite
def distinct_outputs(draw: st.DrawFn) -> list[TaskOutput]:
    """Valid outputs in which every URL occurs once."""
    outputs = []
    for url in draw(st.lists(st.sampled_from(all_urls), unique=True, min_size=1)):
        if url in known_urls and draw(st.booleans()):
            outputs.append(removals(url))
            continue
        update = {
            "zarr_url": url,
            "origin": draw(st.none() | st.sampled_from([*known_urls, "/gone"])),
            "attributes": draw(st.none() | st.dictionaries(names, scalars | st.none())),
            "types": draw(st.none() | types),
        }
        outputs.append(updates(update))
    return outputs


@given(image_lists, distinct_outputs() | st.just([]), st.sets(st.sampled_from(known_urls)), types)
def test_of_a_long_list_only_inputs_and_named_images_matter(
    images: list[Image],
    outputs: list[TaskOutput],
    inputs: set[str],
    output_types: dict[str, bool],
) -> None:
    matter = inputs | named_images(outputs)
    few = [each for each in images if each["zarr_url"] in matter]
    of_all, of_few = (
        merge(*outputs, images=listed, given_urls=inputs, output_types=output_types)
        for listed in (images, few)
    )
    assert of_few.written == of_all.written
    assert of_few.added == of_all.added
    assert of_few.updated == of_all.updated
    assert of_few.removed == of_all.removed


def test_inputs_of_a_merge_stay_as_they_were() -> None:
    images = copy.deepcopy(IMAGES)
    output = updates({"zarr_url": A, "origin": B, "attributes": {"n": None}}, {"zarr_url": NEW})
    for outputs in ([output, removals(C)], []):
        merge(*outputs, images=images, given_urls=[A, B], output_types={"is_3D": False})
        assert images == IMAGES


@given(image_lists, types)
def test_merging_no_output_twice_is_merging_it_once(
    images: list[Image], output_types: dict[str, bool]
) -> None:
    once = merge(images=images, given_urls=known_urls[:3], output_types=output_types)
    twice = merge(images=once.images, given_urls=known_urls[:3], output_types=output_types)
    assert twice == once
    assert once.images[3:] == images[3:]


@given(image_lists, distinct_outputs(), types, st.randoms())
def test_the_order_of_outputs_changes_only_the_order_of_new_images(
    images: list[Image], outputs: list[TaskOutput], output_types: dict[str, bool], random: Any
) -> None:
    straight = merge(*outputs, images=images, output_types=output_types)
    shuffled = random.sample(outputs, len(outputs))
    other = merge(*shuffled, images=images, output_types=output_types)
    assert sorted(straight.images, key=repr) == sorted(other.images, key=repr)
    old = len(images) - len(straight.removed)
    assert straight.images[:old] == other.images[:old]


@given(image_lists, distinct_outputs(), types)
def test_every_url_ends_up_where_the_outputs_say(
    images: list[Image], outputs: list[TaskOutput], output_types: dict[str, bool]
) -> None:
    result = merge(*outputs, images=images, output_types=output_types)
    updated = {each.zarr_url for output in outputs for each in output.image_list_updates}
    removed = {url for output in outputs for url in output.image_list_removals}
    after = {each["zarr_url"]: each for each in result.images}
    assert len(after) == len(result.images)
    assert after.keys() == (set(known_urls) | updated) - removed
    for each in images:
        if each["zarr_url"] not in updated | removed:
            assert after[each["zarr_url"]] is each
    for url in updated:
        assert output_types.items() <= after[url]["types"].items()
        assert None not in after[url]["attributes"].values()
    assert set(result.added) == updated - set(known_urls)
    assert set(result.updated) == updated & set(known_urls)
    assert set(result.removed) == removed
    assert result.num_new == len(result.added)
