"""A real Chromium, and an expert who works in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, expect, sync_playwright

from annotation.labelstudio.server import Login, Server

LAPTOP = {"width": 1366, "height": 768}
PATIENCE_MS = 150_000


def chromium() -> str:
    """The browser's path; scripts/setup_review.sh installs it."""
    names = (os.environ.get("MEDMAX_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    assert found, "no Chromium: run scripts/setup_review.sh"
    return found


@contextmanager
def logged_in(server: Server, who: Login) -> Iterator[Page]:
    """A laptop's page on which `who` has logged in."""
    with sync_playwright() as playwright:
        # Chromium's own sandbox needs rights that containers lack.
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        try:
            page = browser.new_page(viewport=LAPTOP)
            page.set_default_timeout(PATIENCE_MS)
            expect.set_options(timeout=PATIENCE_MS)
            page.goto(f"{server.url}/user/login/")
            page.fill("input[name=email]", who.email)
            page.fill("input[name=password]", who.password.get_secret_value())
            page.click("button[type=submit]")
            page.wait_for_url(lambda url: "/user/login" not in url)
            yield page
        finally:
            browser.close()


def choose(page: Page, name: str) -> None:
    """As a person does: the label is clicked once nothing lies over it, such as a message that fades out."""
    page.locator(f".mm label:has(input[name='{name}'])").click()
    expect(page.locator(f".mm input[name='{name}']")).to_be_checked()
