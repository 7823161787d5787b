"""What counts as a difference."""

import pytest

from tests.differential.comparison import between, differences, plain
from tests.differential.oddities import changed, places, without
from tests.differential.servers import Answer

NO_IDS: list[dict[str, int]] = [{}, {}]


@pytest.mark.parametrize(
    ("ours", "reference", "where"),
    [
        (1, 1.0, "body"),
        (True, 1, "body"),
        ({"a": [1, {"b": None}]}, {"a": [1, {"b": 0}]}, "body.a[].b"),
        ({"a": 1}, {}, "body.a"),
        ([1], [1, 2], "body[]"),
    ],
)
def test_values_that_differ_are_found_with_their_place(ours, reference, where):
    assert [each.where for each in between(ours, reference)] == [where]


def test_ids_times_and_words_of_each_server_are_no_difference():
    ours = {"id": 1, "project_id": 7, "timestamp_created": "2026-01-01T00:00:00+00:00", "log": "a"}
    theirs = {"id": 2, "project_id": 8, "timestamp_created": "2025-01-01T00:00:00Z", "log": "b"}
    assert plain(ours, {"project": 7}) == plain(theirs, {"project": 8})
    assert plain(ours, {"project": 7}) != plain(theirs, {"project": 9})
    assert plain({"log": None}, {}) != plain({"log": "b"}, {})


def test_errors_are_compared_by_their_status():
    refused, missing = Answer(422, {"detail": "no"}), Answer(404, {"detail": "what?"})
    assert not differences(refused, Answer(422, {"detail": "other words"}), NO_IDS)
    assert [each.where for each in differences(refused, missing, NO_IDS)] == ["status"]


def test_a_crash_of_the_reference_tells_nothing_and_one_of_ours_does():
    crash, good = Answer(500, None), Answer(200, {})
    assert not differences(good, crash, NO_IDS)
    assert differences(crash, good, NO_IDS)


def test_of_a_list_only_what_is_known_is_compared():
    ours = Answer(200, [{"id": 1, "name": "same"}, {"id": 5, "name": "another"}])
    theirs = Answer(200, [{"id": 9, "name": "same"}])
    ids = [{"project": 1}, {"project": 9}]
    assert not differences(ours, theirs, ids, "project")
    assert differences(ours, theirs, ids)


def test_bodies_are_changed_in_any_place_and_not_in_place():
    body = {"a": [{"b": 1}, 2]}
    assert list(places(body)) == [(), ("a",), ("a", 0), ("a", 0, "b"), ("a", 1)]
    assert changed(body, ("a", 0, "b"), 3) == {"a": [{"b": 3}, 2]}
    assert without(body, ("a", 0)) == {"a": [2]}
    assert without(body, ("a",)) == {}
    assert body == {"a": [{"b": 1}, 2]}
