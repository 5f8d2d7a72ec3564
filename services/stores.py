"""File systems by address, as fsspec has them; `s3://` goes through pyarrow, which is installed anyway.

(fsspec's own S3 package needs python-dateutil below 3; pandas here has 4.)
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import fsspec  # type: ignore[import-untyped]

from services.errors import ConfigurationError

S3 = "s3://"
CONNECT_S, ANSWER_S = 5.0, 30.0


def open_store(address: str, field: str) -> tuple[Any, str]:
    """The file system of `address` (a folder, s3://BUCKET/PATH, hf://OWNER/NAME, …) and the path in it.

    S3 takes AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the machine's own rights, and AWS_ENDPOINT_URL for a
    store that is not Amazon's.

    Args:
        field: what an error names.

    Raises:
        ConfigurationError: no such kind of address, its package is not installed, or AWS_ENDPOINT_URL is no address.
    """
    if address.startswith(S3):
        return _s3(), address.removeprefix(S3).strip("/")
    try:
        filesystem, root = fsspec.core.url_to_fs(address)
    except (ValueError, ImportError):
        raise ConfigurationError(
            "is no address that fsspec can open (a folder, s3://…), or its package is not installed",
            field=field,
        ) from None
    return filesystem, root


def _s3() -> Any:
    from fsspec.implementations.arrow import ArrowFSWrapper  # type: ignore[import-untyped]
    from pyarrow.fs import S3FileSystem

    where = {}
    if endpoint := os.environ.get("AWS_ENDPOINT_URL", ""):
        parts = urlsplit(endpoint)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise ConfigurationError("must be http://HOST[:PORT] or https://…", field="AWS_ENDPOINT_URL")
        where = {"scheme": parts.scheme, "endpoint_override": parts.netloc}
    made = S3FileSystem(
        region=os.environ.get("AWS_REGION", "us-east-1"),
        connect_timeout=CONNECT_S,
        request_timeout=ANSWER_S,
        allow_delayed_open=True,  # a picture in one request instead of three
        **where,
    )
    return ArrowFSWrapper(made)
