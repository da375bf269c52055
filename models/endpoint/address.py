"""The address of a server: a plain URL, in which nothing is secret, for addresses are written down and shown."""

from urllib.parse import urlsplit

from models.endpoint.errors import EndpointError


def checked_address(url: str) -> str:
    """The address as messages, files and requests have it, without a slash at its end.

    Raises:
        EndpointError: it is no URL of a server, or holds what may be secret: a user with a password, or a query. What
            was in there is not repeated.
    """
    shown = url.rpartition("@")[2].partition("?")[0].partition("#")[0]
    try:
        parts = urlsplit(url)
        host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
    except ValueError:
        # Python's own words repeat the part that is wrong, which of a torn address may be the password.
        raise EndpointError(f"endpoint {shown!r}: is no URL such as http://127.0.0.1:8000/v1") from None
    if parts.scheme not in ("http", "https") or not host:
        raise EndpointError(f"endpoint {shown!r}: should be a URL such as http://127.0.0.1:8000/v1")
    for found, what in (
        ("@" in parts.netloc, "a user or a password"),
        ("?" in url, "a query"),
        ("#" in url, "a fragment"),
    ):
        if found:
            raise EndpointError(
                f"endpoint {shown!r}: had {what} in it, and addresses are written into files; leave it out, put the "
                "key into an environment variable and name that as api_key_variable (--key-variable)"
            )
    return url.rstrip("/")
