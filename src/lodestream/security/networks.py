"""Where a request comes from, when proxies stand between, and whether it may."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from lodestream.errors import AccessError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class AddressError(AccessError):
    """The credential is good, and may not be used from where it came."""


def is_local(host: str) -> bool:
    """Whether only this machine can reach an address to listen on."""
    return host in ("127.0.0.1", "localhost", "::1")


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Networks as written, such as `10.0.0.0/8` or `::1`. Raises ValueError for anything else."""
    return tuple(ipaddress.ip_network(text.strip()) for text in texts)


@functools.lru_cache(1024)
def address(text: str) -> Address | None:
    """An address; one of IPv4 that is written as IPv6 (`::ffff:10.0.0.1`) is the IPv4 one. None for anything else."""
    try:
        found = ipaddress.ip_address(text.strip().partition("%")[0])
    except ValueError:
        return None
    return (getattr(found, "ipv4_mapped", None) or found) if found.version == 6 else found


def is_in(found: Address | None, among: Sequence[Network]) -> bool:
    """Whether an address is in one of the networks; an unknown one is in none."""
    return found is not None and any(found.version == net.version and found in net for net in among)


def client(peer: str, forwarded: Sequence[str], proxies: Sequence[Network]) -> Address | None:
    """Who sent the request.

    The last address that no trusted proxy has: whatever stands before it, anybody may have written.

    Args:
        peer: the other end of the connection.
        forwarded: the `X-Forwarded-For` headers, in order.
        proxies: networks of trusted proxies.
    """
    found = address(peer)
    hops = [hop for header in forwarded for hop in header.split(",")]
    while hops and is_in(found, proxies):
        found = address(_without_port(hops.pop().strip()))
    return found


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
