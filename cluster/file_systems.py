"""The file systems of places: the machine's own, or that of a URI. Each is made once per process.

S3 reads its keys, region and endpoint from the usual variables (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL) or a credentials file;
`?endpoint_override=host:port&scheme=http` in the URI works too. Keys never stand in a URI.
"""

import os
from functools import lru_cache
from urllib.parse import parse_qs

from pyarrow import fs

from cluster.errors import BadInput

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")


@lru_cache(maxsize=64)
def file_system_of(scheme: str, authority: str, query: str) -> fs.FileSystem:
    """The file system of a URI, made once per process."""
    if scheme != "s3":
        found, _ = fs.FileSystem.from_uri(f"{scheme}://{authority}/{'?' + query if query else ''}")
        return found
    given = {k: v[0] for k, v in parse_qs(query).items()}
    unknown = set(given) - {"endpoint_override", "scheme", "region"}
    if unknown:
        raise BadInput(
            "the S3 URI has an unknown parameter",
            ", ".join(sorted(unknown)),
            "endpoint_override, scheme, region",
            "remove it",
        )
    endpoint = given.get("endpoint_override") or next(
        (os.environ[n] for n in ENDPOINTS if os.environ.get(n)), ""
    )
    wire, _, host = endpoint.rpartition("://")
    region = given.get("region") or next((os.environ[n] for n in REGIONS if os.environ.get(n)), None)
    return fs.S3FileSystem(
        endpoint_override=host or None,
        scheme=given.get("scheme") or wire or "https",
        region=region,
        connect_timeout=10,
        request_timeout=60,
    )


@lru_cache(maxsize=1)
def local_file_system() -> fs.FileSystem:
    return fs.LocalFileSystem()
