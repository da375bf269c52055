"""The HTTP client of a server: its key, and what the environment says of proxies and certificates.

A client reads its environment when it is made. What is wrong there is named by its variable, for the libraries below
name neither the variable nor, some of them, the value.
"""

import os
from collections.abc import Awaitable, Callable, Iterator

import httpx2

from data.errors import one_line
from models.endpoint.errors import EndpointError

CONNECT_SECONDS = 10.0
"""How long a connection may take: a server that is there accepts one within a second, also across an ocean."""

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
"""Variables of a proxy's URL; they are read in small and in capital letters."""

_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Variables of certificates, of which the first that is set is read, also by a client that speaks no TLS."""

_KEY_LOG = "SSLKEYLOGFILE"
"""The variable of a file that the keys of connections are written to."""


def http_client(name: str, key: str, look: Callable[[httpx2.Response], Awaitable[None]]) -> httpx2.AsyncClient:
    """A client that sends a key and follows redirects.

    Args:
        name: how errors name the server.
        key: the server's key; empty where it needs none.
        look: is shown every response, before a redirect of it is followed.

    Raises:
        EndpointError: the key is none that can be sent, which is not shown, or the environment is wrong.
    """
    # A line break within a key would end its header, and the error of the HTTP library shows the header.
    if not key.isascii() or not key.isprintable():
        raise EndpointError(f"{name}: its key has characters that no key has")
    try:
        return httpx2.AsyncClient(
            # A server that needs no key takes any.
            headers={"Authorization": f"Bearer {key or 'none'}", "Content-Type": "application/json"},
            timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
            follow_redirects=True,
            event_hooks={"response": [look]},
        )
    except OSError as error:
        raise EndpointError(f"{name}: {_wrong_certificates(error)}") from error
    except (httpx2.InvalidURL, ValueError, ImportError) as error:
        raise EndpointError(f"{name}: {_wrong_proxy()}") from error


def _wrong_certificates(error: OSError) -> str:
    read = [variable for variable in _CERTIFICATES if os.environ.get(variable)][:1]
    # Opened together with certificates that are named, and the error does not tell the two apart.
    read += [variable for variable in (_KEY_LOG,) if read and os.environ.get(variable)]
    told = " or ".join(f"{variable}={os.environ[variable]!r}" for variable in read)
    where = f"the environment variable {told}" if told else "the certificates of this machine"
    return f"{where} cannot be used ({one_line(error.strerror or error)})"


def _wrong_proxy() -> str:
    """Which proxy of the environment cannot be used; a user and a password in its URL are not shown."""
    for variable, url in _proxies():
        shown = url.rpartition("@")[2]
        if url.lower().startswith("socks"):
            return (
                f"the environment variable {variable} names a SOCKS proxy, {shown!r}, which needs the package socksio; "
                "install it, or unset the variable"
            )
        try:
            httpx2.Proxy(url)
        except (httpx2.InvalidURL, ValueError):
            return (
                f"the environment variable {variable}, {shown!r}, should be the URL of a proxy such as "
                "http://127.0.0.1:3128"
            )
    return f"the proxies of the environment ({', '.join(variable for variable, _ in _proxies())}) cannot be used"


def _proxies() -> Iterator[tuple[str, str]]:
    """Every variable that names a proxy, and its URL as it is read."""
    for variable, value in os.environ.items():
        if variable.lower() in _PROXIES and value:
            yield variable, value if "://" in value else f"http://{value}"
