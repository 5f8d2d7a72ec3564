"""Screenshots of the four labelling configurations, for docs/images: `python -m scripts.review_screenshots`.

Starts a Label Studio of its own and looks at phantoms in a real browser, as the tests do.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import SecretStr

from annotation.core import Kind
from annotation.labelstudio import pictures
from annotation.labelstudio.client import LabelStudio
from annotation.labelstudio.pictures import PictureLinks
from annotation.labelstudio.server import Server, running
from services.config import ROOT
from services.tokenizer.limits import Limits
from tests.support import browser
from tests.support.labelstudio import hosting, item, ranked

IMAGES = ROOT / "docs" / "images"
SECRET = SecretStr("the secret of pictures")
CHOSEN = {
    Kind.CHAT: ("Edit", "Side, size or number", "Major"),
    Kind.REPORT: ("Edit", "Side, size or number", "Critical"),
    Kind.PICTURE: ("Reject", "Wrong finding", "Minor"),
    Kind.PREFERENCE: (),
}


def shoot(server: Server, folder: Path = IMAGES) -> None:
    """Writes review-<kind>.png, 1366 x 768."""
    items = [item(kind, f"shot-{kind.value}") for kind in Kind if kind is not Kind.PREFERENCE]
    items.append(ranked("shot-preference"))
    files: dict[Any, Any] = {
        (about.id, picture.sha256): picture.data for about in items for picture in about.pictures
    }
    limits = Limits(max_bytes=1 << 24, max_pixels=1 << 24)
    with ExitStack() as stack:
        links = PictureLinks("http://unused", SECRET)
        routes = pictures.router(links, lambda id, sha: files.get((id, sha)), limits)
        links = PictureLinks(stack.enter_context(hosting(routes)), SECRET)
        studio = stack.enter_context(LabelStudio(server.url, server.admin.token))
        expert = server.add_expert("shots@hospital.example", "a long password")
        page = stack.enter_context(browser.logged_in(server, expert))
        for about in items:
            studio.ensure_project(about.kind)
            page.goto(studio.publish(about, links.urls(about)).url)
            page.wait_for_selector(".mm")
            page.wait_for_timeout(2000)
            for name in CHOSEN[about.kind]:
                browser.choose(page, name)
            if about.kind is Kind.REPORT:
                page.get_by_text("pleural effusion", exact=True).first.click()
                box = page.locator(".mm canvas").first.bounding_box()
                assert box
                page.mouse.move(box["x"] + 0.06 * box["width"], box["y"] + 0.32 * box["height"])
                page.mouse.down()
                page.mouse.move(box["x"] + 0.42 * box["width"], box["y"] + 0.86 * box["height"], steps=8)
                page.mouse.up()
            if about.kind is Kind.PICTURE:
                for question, stars in enumerate((4, 2)):
                    page.locator(".mm .ant-rate").nth(question).locator("li").nth(stars - 1).click()
            page.wait_for_timeout(1000)
            with Image.open(BytesIO(page.screenshot())) as shot:
                small = shot.convert("RGB").quantize(192, dither=Image.Dither.NONE)
                small.save(folder / f"review-{about.kind.value}.png", optimize=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as server:
        shoot(server)


if __name__ == "__main__":
    main()
