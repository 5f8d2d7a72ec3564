"""Pictures that a request names: `data:` URLs, and addresses on hosts that the installation allows."""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import re
import socket
from dataclasses import dataclass

import httpx

from services.config import Settings
from services.deadline import Deadline
from services.errors import InvalidImage, InvalidInput, PayloadTooLarge, Unavailable
from services.pb.medmax.v1 import assistant_pb2

FETCH_TIMEOUT_S = 10.0
_DATA = re.compile(r"data:([A-Za-z0-9.+/-]*)((?:;[A-Za-z0-9._=+-]+)*?)(;base64)?,", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}
_KINDS = ("image/", "application/dicom", "application/octet-stream")

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Fetch:
    """A picture still to be fetched: from where, into which part, and the caller's name of the address."""

    url: str
    image: assistant_pb2.ImagePart
    field: str


def decode_data_url(url: str, field: str, limit: int) -> bytes:
    """The bytes in a `data:` URL.

    Raises:
        InvalidImage: no base64, or not of a picture's type.
        PayloadTooLarge: more than `limit` bytes.
    """
    head = _DATA.match(url[:256])
    if head is None or not head[3]:
        raise InvalidImage("must be data:<type>;base64,<data>", field=field)
    if head[1] and not head[1].lower().startswith(_KINDS):
        raise InvalidImage("must have type image/… or application/dicom", field=field)
    encoded = url[head.end() :]
    if len(encoded) > limit * 4 // 3 + 8:
        raise PayloadTooLarge(f"at most {limit:,} bytes (MEDMAX_MAX_IMAGE_BYTES)", field=field)
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidImage("is not valid base64", field=field) from None


def is_data_url(url: str) -> bool:
    return url[:5].lower() == "data:"


def check_address(url: str, field: str, settings: Settings) -> httpx.URL:
    """The address of a picture on a listed host; nothing is sent.

    Raises:
        InvalidInput: no http(s) address, or of a host that is not on the list.
    """
    parsed = _parse(url)
    if parsed is None:
        raise InvalidInput("must be a data: URL", field=field)
    if not settings.image_url_hosts:
        raise InvalidInput("addresses are not fetched; give the picture as a data: URL", field=field)
    names = {parsed.host, f"[{parsed.host}]"} if _port(parsed) in _PORTS.values() else set()
    names |= {f"{parsed.host}:{_port(parsed)}", f"[{parsed.host}]:{_port(parsed)}"}
    if names.isdisjoint(entry.lower() for entry in settings.image_url_hosts):
        raise InvalidInput(
            "the host is not in MEDMAX_IMAGE_URL_HOSTS; give the picture as a data: URL", field=field
        )
    return parsed


def _parse(url: str) -> httpx.URL | None:
    """An http(s) address with a host and no user or password; None for anything else."""
    if not url.isascii() or not url.isprintable() or set(url) & set(" \\@"):
        return None
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return None
    return parsed if parsed.scheme in _PORTS and parsed.host else None


def _port(url: httpx.URL) -> int:
    return url.port or _PORTS[url.scheme]


async def fetch(item: Fetch, settings: Settings, deadline: Deadline) -> None:
    """Fetches a picture into its part. No redirect is followed and no proxy is used.

    An address that is not public (private, loopback, link-local …) is contacted only where the list names that very
    address beside the host, so that a name cannot be pointed at the inside of the network.

    Raises:
        InvalidInput: the host resolves to an address that may not be contacted, or does not resolve.
        InvalidImage: the answer is not a picture with status 200.
        PayloadTooLarge: more than the limit.
        Unavailable: the host does not answer in time.
        DeadlineExceeded: the request's own time ran out.
    """
    try:
        async with asyncio.timeout(min(FETCH_TIMEOUT_S, deadline.remaining_s)):
            item.image.data = await _get(item, settings)
    except (TimeoutError, httpx.HTTPError):
        deadline.check()
        raise Unavailable(
            f"the picture could not be fetched within {FETCH_TIMEOUT_S:g} s",
            field=item.field,
            retry_after_s=1,
        ) from None


async def _get(item: Fetch, settings: Settings) -> bytes:
    url = check_address(item.url, item.field, settings)
    address = await _resolve(url, item.field, settings)
    # Connecting to the address that was checked: resolving again could give another one.
    pinned = url.copy_with(host=str(address))
    headers = {
        "Host": url.netloc.decode("ascii"),
        "Accept": "image/*, application/dicom",
        "Accept-Encoding": "identity",
    }
    async with (
        httpx.AsyncClient(follow_redirects=False, trust_env=False) as client,
        client.stream("GET", pinned, headers=headers, extensions={"sni_hostname": url.host}) as response,
    ):
        if response.status_code != 200:
            raise InvalidImage(
                f"the host answered with status {response.status_code}; 200 is needed, no redirect",
                field=item.field,
            )
        return await _read(response, item.field, settings.max_image_bytes)


async def _read(response: httpx.Response, field: str, limit: int) -> bytes:
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) > limit:
            raise PayloadTooLarge(f"at most {limit:,} bytes (MEDMAX_MAX_IMAGE_BYTES)", field=field)
    return bytes(data)


async def _resolve(url: httpx.URL, field: str, settings: Settings) -> Address:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(url.host, _port(url), type=socket.SOCK_STREAM)
    except OSError:
        raise InvalidInput("the host has no address", field=field) from None
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    for address in addresses:
        if not _allowed(address, settings):
            raise InvalidInput(
                "the host has an address inside the network; MEDMAX_IMAGE_URL_HOSTS must name that address too",
                field=field,
            )
    return addresses[0]


def _allowed(address: Address, settings: Settings) -> bool:
    listed = {entry.lower() for entry in settings.image_url_hosts}
    for each in (address, *_embedded(address)):
        names = {str(each), f"[{each}]"}
        named = any(entry in names or entry.rpartition(":")[0] in names for entry in listed)
        if not named and (not each.is_global or each.is_multicast):
            return False
    return True


def _embedded(address: Address) -> list[ipaddress.IPv4Address]:
    """IPv4 addresses that an IPv6 address leads to."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, (address.teredo or (None, None))[1]]
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [each for each in found if each is not None]
