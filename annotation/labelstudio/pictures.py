"""Pictures for the experts' browsers: signed addresses of our own server.

Label Studio keeps none of them. Files uploaded to it stay on its disk even when the upload is deleted by API (1.23), so
a deleted item's pictures would live on; data URIs would travel with every list of tasks. A signed address works without
a log-in of ours, for one picture of one item and for as long as its signature says; it ends at once when the item goes.
Where experts read, this server must be reachable; nothing has to be public.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping
from io import BytesIO

from fastapi import APIRouter, Response
from PIL import Image
from pydantic import SecretStr

from annotation.core import Item
from services.errors import ConfigurationError, NotFound
from services.tokenizer.limits import Limits
from services.tokenizer.pictures import read_picture

PATH = "/labelstudio/pictures"
DAY_S = 86_400
_SHA256 = re.compile(r"[0-9a-f]{64}")


class PictureLinks:
    """Makes and checks the addresses.

    Args:
        base_url: where the experts' browsers find this server, without a path's end.
        secret: signs; whoever has it can read every picture.
        days: how long an address works. Not below the time that an item waits for review.

    Raises:
        ConfigurationError: the secret is shorter than 16 characters.
    """

    def __init__(self, base_url: str, secret: SecretStr, days: int = 30) -> None:
        if len(secret.get_secret_value()) < 16:
            raise ConfigurationError("must have at least 16 characters", field="labelstudio_picture_secret")
        self._base = base_url.rstrip("/")
        self._secret = secret.get_secret_value().encode()
        self._days = days

    def urls(self, item: Item) -> Mapping[str, str]:
        """Addresses of an item's pictures, by digest."""
        # Whole days, so that an item published twice on one day has the same addresses.
        until = (int(time.time()) // DAY_S + 1 + self._days) * DAY_S
        return {
            picture.sha256: f"{self._base}{PATH}/{picture.sha256}?item={item.id}&until={until}"
            f"&signature={self._sign(item.id, picture.sha256, until)}"
            for picture in item.pictures
        }

    def valid(self, item_id: str, sha256: str, until: int, signature: str) -> bool:
        expected = self._sign(item_id, sha256, until)
        return (
            hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace"))
            and until > time.time()
        )

    def _sign(self, item_id: str, sha256: str, until: int) -> str:
        return hmac.new(self._secret, f"{item_id}\n{sha256}\n{until}".encode(), hashlib.sha256).hexdigest()


def router(links: PictureLinks, read: Callable[[str, str], bytes | None], limits: Limits) -> APIRouter:
    """`GET /labelstudio/pictures/{sha256}`: the picture as PNG, upright, without any of the file's metadata.

    Args:
        read: item's id and picture's digest to the file, of any kind that the tokenizer reads; None for an item or
            picture that is gone. Called from a thread.
    """
    routes = APIRouter(include_in_schema=False)

    @routes.get(PATH + "/{sha256}")
    async def picture(sha256: str, item: str = "", until: int = 0, signature: str = "") -> Response:
        # One answer for every refusal: none tells whether a picture is there.
        if not _SHA256.fullmatch(sha256) or not links.valid(item, sha256, until, signature):
            raise NotFound("no such picture, or its address has expired")
        png = await asyncio.to_thread(_png, read, item, sha256, limits)
        headers = {
            "Cache-Control": "private, max-age=3600",
            # The editor reads pixels, which browsers allow across origins only so.
            "Access-Control-Allow-Origin": "*",
            "Cross-Origin-Resource-Policy": "cross-origin",
            "X-Content-Type-Options": "nosniff",
        }
        return Response(png, media_type="image/png", headers=headers)

    return routes


def _png(read: Callable[[str, str], bytes | None], item: str, sha256: str, limits: Limits) -> bytes:
    data = read(item, sha256)
    if data is None:
        raise NotFound("no such picture, or its address has expired")
    target = BytesIO()
    Image.fromarray(read_picture(data, limits).pixels).save(target, "PNG")
    return target.getvalue()
