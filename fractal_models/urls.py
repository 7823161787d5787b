"""Places of images, datasets and projects: absolute paths, or URLs in an object store (`s3://`).

Such places are joined and compared only here, because `pathlib` would damage a URL.
"""

import re
from collections.abc import Iterable
from posixpath import normpath

from fractal_models.errors import FractalError

_S3 = "s3://"
# Longer URLs do not fit into PostgreSQL's indexes.
MAX_URL_BYTES = 2000

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_IP_ADDRESS = re.compile(r"\d{1,3}(\.\d{1,3}){3}")
_RESERVED_STARTS = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_ENDS = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
_MAX_KEY_BYTES = 1024


class InvalidUrl(FractalError, ValueError):
    """Neither an absolute path nor an S3 URL; the message says what is wrong."""


def on_s3(url: str) -> bool:
    """Whether this is an S3 URL, not a path."""
    return url.startswith(_S3)


def normalize_url(url: str) -> str:
    """A path or URL in its standard spelling, so that equal places have equal names.

    Surrounding blanks and trailing slashes are removed; in paths also empty and `.` segments. (In
    an object store, `a//b` and `a/b` are two keys.)

    Raises:
        InvalidUrl: neither an absolute path nor an S3 URL, a `..` segment, a NUL character, or
            more than MAX_URL_BYTES bytes.
    """
    clean = url.strip()
    if on_s3(clean):
        clean = _S3 + clean.removeprefix(_S3).rstrip("/")
    elif clean.startswith("/"):
        # Most are clean already, and there can be 100,000.
        if "//" in clean or "/." in clean or clean.endswith("/"):
            clean = "/" + "/".join(part for part in clean.split("/") if part not in ("", "."))
    else:
        raise InvalidUrl(
            f"{url!r} must be an absolute path (/data/plate.zarr) "
            "or a URL of S3 (s3://bucket/plate.zarr)"
        )
    if "/.." in clean and ".." in clean.split("/"):
        raise InvalidUrl(f"{url!r} contains a '..' segment: write the path it leads to")
    if "\0" in clean:
        raise InvalidUrl(f"{url!r} contains a NUL character: remove it")
    if len(clean) > MAX_URL_BYTES // 4 and len(clean.encode(errors="replace")) > MAX_URL_BYTES:
        raise InvalidUrl(
            f"{clean[:40]!r}... is of more than {MAX_URL_BYTES} bytes: use a shorter path"
        )
    return clean


def absolute_path(path: str) -> str:
    """An absolute path in its standard spelling.

    Raises:
        InvalidUrl: it is not an absolute path, or as `normalize_url`.
    """
    if not path.startswith("/"):
        raise InvalidUrl(f"{path!r} is not an absolute path: start it with '/'")
    return normalize_url(path)


def relative_path(path: str) -> str:
    """A path below some folder, in its standard spelling.

    Raises:
        InvalidUrl: it is absolute, or contains a `..` segment.
    """
    if path.startswith("/"):
        raise InvalidUrl(f"{path!r} is an absolute path: give one below the folder")
    if ".." in path.split("/"):
        raise InvalidUrl(f"{path!r} contains a '..' segment: write the path it leads to")
    return normpath(path)


def project_dir(url: str) -> str:
    """Check a folder in which users may have datasets: an absolute path, or a key in an S3 bucket.

    Raises:
        InvalidUrl: it is neither, or no bucket can have this name.
    """
    if not on_s3(url):
        return absolute_path(url)
    normalize_url(url)
    bucket, _, key = url.removeprefix(_S3).partition("/")
    if not bucket or not key:
        raise InvalidUrl(f"{url!r} must be like s3://bucket/key")
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise InvalidUrl(
            f"{bucket!r} is no name of a bucket: it has 3 to 63 small letters, digits, '.' and "
            "'-', begins and ends with a letter or digit, and has no '..'"
        )
    if (
        _IP_ADDRESS.fullmatch(bucket)
        or bucket.startswith(_RESERVED_STARTS)
        or bucket.endswith(_RESERVED_ENDS)
    ):
        raise InvalidUrl(f"{bucket!r} is no name of a bucket: S3 keeps such names to itself")
    if len(key.encode(errors="replace")) > _MAX_KEY_BYTES:
        raise InvalidUrl(f"the key of {url[:40]!r}... is of more than {_MAX_KEY_BYTES} bytes")
    return url


def join_url(folder: str, below: str) -> str:
    """The place `below` a folder; `below` is a relative path, `.` means the folder itself."""
    if below == ".":
        return folder
    return f"{folder.rstrip('/')}/{below}"


def lies_in(url: str, folders: Iterable[str]) -> bool:
    """Whether a place is one of these folders, or below one of them."""
    place = normalize_url(url)
    return any(
        place == normalize_url(folder) or not not_below([place], folder) for folder in folders
    )


def not_below(urls: Iterable[str], folder: str) -> list[str]:
    """The URLs, which must be normalised, that are not below a folder; nor is the folder itself."""
    start = normalize_url(folder).rstrip("/") + "/"
    return [url for url in urls if not url.startswith(start)]
