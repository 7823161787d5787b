import pytest

from fractal_models.urls import (
    InvalidUrl,
    absolute_path,
    join_url,
    lies_in,
    normalize_url,
    not_below,
    project_dir,
    relative_path,
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
        ("/data/a b\t\N{SNOWMAN}", "/data/a b\t\N{SNOWMAN}"),
        ("/", "/"),
        ("s3://bucket/key/", "s3://bucket/key"),
        ("s3://bucket//key", "s3://bucket//key"),
        ("s3://bucket/./key", "s3://bucket/./key"),
        ("s3://", "s3://"),
    ],
)
def test_a_place_has_one_spelling(given: str, normal: str) -> None:
    assert normalize_url(given) == normal
    assert normalize_url(normal) == normal


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("", "absolute path"),
        ("   ", "absolute path"),
        ("data/plate.zarr", "absolute path"),
        ("C:/data", "absolute path"),
        ("https://host/plate.zarr", "absolute path"),
        ("file:///data", "absolute path"),
        ("/data/../etc", r"'\.\.' segment"),
        ("/data/..", r"'\.\.' segment"),
        ("s3://bucket/../other", r"'\.\.' segment"),
        ("/data/\0", "NUL"),
        ("/" + 2000 * "a", "2000 bytes"),
        ("/" + 700 * "\N{SNOWMAN}", "2000 bytes"),
    ],
)
def test_what_is_no_place_is_refused(given: str, told: str) -> None:
    with pytest.raises(InvalidUrl, match=told):
        normalize_url(given)


@pytest.mark.parametrize(
    ("given", "normal"),
    [("a/b/", "a/b"), ("./a", "a"), ("a//b", "a/b"), (".", "."), ("..a/b c", "..a/b c")],
)
def test_a_relative_path_has_one_spelling(given: str, normal: str) -> None:
    assert relative_path(given) == normal


@pytest.mark.parametrize("given", ["/a", "a/../b", ".."])
def test_what_leads_elsewhere_is_no_relative_path(given: str) -> None:
    with pytest.raises(InvalidUrl):
        relative_path(given)


@pytest.mark.parametrize("given", ["s3://bucket/key", "a", ""])
def test_an_absolute_path_is_no_url(given: str) -> None:
    with pytest.raises(InvalidUrl, match="start it with '/'"):
        absolute_path(given)


@pytest.mark.parametrize(
    ("folder", "below", "joined"),
    [
        ("/data", "a/b", "/data/a/b"),
        ("/", "a", "/a"),
        ("/data", ".", "/data"),
        ("s3://bucket/key", "a/b", "s3://bucket/key/a/b"),
        ("s3://bucket/key/", "a", "s3://bucket/key/a"),
        ("s3://bucket/key", ".", "s3://bucket/key"),
    ],
)
def test_places_are_joined(folder: str, below: str, joined: str) -> None:
    assert join_url(folder, below) == joined


@pytest.mark.parametrize(
    ("url", "folder", "inside"),
    [
        ("/data/a", "/data", True),
        ("/data/a", "/data/", True),
        ("/data//a/", "/data", True),
        ("/data", "/data", True),
        ("/data", "/", True),
        ("/database", "/data", False),
        ("/elsewhere", "/data", False),
        ("/data", "/data/a", False),
        ("s3://bucket/key/a", "s3://bucket/key", True),
        ("s3://bucket/key/a", "s3://bucket/key/", True),
        ("s3://bucket/keys", "s3://bucket/key", False),
        ("s3://bucket/a", "/bucket", False),
        ("/bucket/a", "s3://bucket", False),
        ("/s3:/bucket/a", "s3://bucket", False),
    ],
)
def test_a_place_lies_in_a_folder(url: str, folder: str, inside: bool) -> None:
    assert lies_in(url, ["/other", folder]) is inside
    assert not lies_in(url, [])


def test_the_folder_is_not_below_itself() -> None:
    urls = ["/data", "/data/a", "/database", "s3://data/a"]

    assert not_below(urls, "/data/") == ["/data", "/database", "s3://data/a"]


@pytest.mark.parametrize(
    "url", ["/data", "s3://lab-1.images/key", "s3://bucket/a b", "s3://123/key", "s3://bucket/k/"]
)
def test_a_project_is_on_disk_or_in_a_bucket(url: str) -> None:
    assert project_dir(url) == url


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://host/key", "absolute path"),
        ("s3://bucket", "s3://bucket/key"),
        ("s3://bucket/", "s3://bucket/key"),
        ("s3:///key", "s3://bucket/key"),
        ("s3://ab/key", "no name of a bucket"),
        (f"s3://{64 * 'a'}/key", "no name of a bucket"),
        ("s3://Bucket/key", "no name of a bucket"),
        ("s3://b_cket/key", "no name of a bucket"),
        ("s3://-bucket/key", "no name of a bucket"),
        ("s3://bucket./key", "no name of a bucket"),
        ("s3://buc..ket/key", "no name of a bucket"),
        ("s3://192.168.0.1/key", "keeps such names"),
        ("s3://xn--bucket/key", "keeps such names"),
        ("s3://bucket--ol-s3/key", "keeps such names"),
        (f"s3://bucket/{1025 * 'k'}", "1024 bytes"),
        ("s3://bucket/../key", "segment"),
    ],
)
def test_what_no_bucket_holds_is_refused(url: str, told: str) -> None:
    with pytest.raises(InvalidUrl, match=told):
        project_dir(url)
