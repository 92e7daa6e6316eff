"""Where a request may go: what is local, and connections that refuse to end there.

What belongs here is addresses and peers, no requests. Providers send addresses (thumbnails, pages, redirects), and one
that leads to this machine or its network would let them read what only we may see.
"""

import ipaddress
import socket
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util import parse_url

from urbanprint.errors import InputError, SourceError


def bare_endpoint(endpoint: str, *, provider: str) -> str:
    """Return `endpoint` without a closing slash. Raises `InputError` where it holds a user name, password or query.

    Endpoints stand in messages and in the ledger, where no secret may stand; so the sentence does not show it either.
    """
    try:
        parts = urlsplit(endpoint)
        bare = "@" not in parts.netloc and not parts.query and not parts.fragment
    except ValueError:
        bare = False
    if not bare:
        raise InputError(
            f"the endpoint of {provider} holds a user name, a password or a query, or is no address: expected only "
            "scheme, host and path, as in https://host/path; keys belong in environment variables"
        )
    return endpoint.rstrip("/")


def is_local(url: str) -> bool:
    """Return whether the host of `url` is this machine or lies on its network (loopback, private, link-local ...).

    Names are looked up once a process; one that cannot be looked up is not local: a proxy may know it, and nothing
    else can reach it.
    """
    host = (parse_url(url).host or "").strip("[]")
    try:
        return any(_is_local_ip(address) for address in _addresses(host))
    except (OSError, UnicodeError):
        return False


@lru_cache(maxsize=4096)
def _addresses(host: str) -> tuple[str, ...]:
    return tuple({str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)})


def _is_local_ip(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return not ip.is_global or ip.is_multicast


def _refuse_local_peer(connection: HTTPConnection) -> None:
    """Hang up before a request is sent where the peer is local.

    The name was looked up and checked before, but a hostile name server can answer differently the second time.
    """
    if _is_local_ip(connection.sock.getpeername()[0]):
        connection.close()
        raise SourceError(f"{connection.host} leads to this machine or its network, which is refused")


class _PublicConnection(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _refuse_local_peer(self)


class _PublicTlsConnection(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _refuse_local_peer(self)


class _PublicPool(HTTPConnectionPool):
    ConnectionCls = _PublicConnection


class _PublicTlsPool(HTTPSConnectionPool):
    ConnectionCls = _PublicTlsConnection


class PublicAdapter(HTTPAdapter):
    """Connections of a client whose provider is not local; through a proxy, the proxy decides."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PublicPool, "https": _PublicTlsPool}
