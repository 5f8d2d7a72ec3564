"""Whole reviews in a real browser: what an expert clicks is what the API says afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page
from pydantic import SecretStr

from annotation.core import Annotation, Decision, Item, Kind, Severity
from annotation.labelstudio import pictures
from annotation.labelstudio.client import LabelStudio
from annotation.labelstudio.pictures import PictureLinks
from annotation.labelstudio.server import Server
from services.tokenizer.limits import Limits
from tests.support import browser
from tests.support.labelstudio import hosting, item, ranked

LIMITS = Limits(max_bytes=1 << 24, max_pixels=1 << 24)
SECRET = SecretStr("the secret of pictures")
TAG = os.urandom(3).hex()
"""Of items and people: the server's database may be an older one."""


class Desk:
    """A Label Studio, our pictures' server, and an expert at a laptop."""

    def __init__(self, studio: LabelStudio, links: PictureLinks, files: dict[Any, Any], page: Page) -> None:
        self.studio, self.links, self.files, self.page = studio, links, files, page

    def open(self, about: Item) -> None:
        """Publish the item and open its task."""
        self.files |= {(about.id, picture.sha256): picture.data for picture in about.pictures}
        self.studio.ensure_project(about.kind)
        self.page.goto(self.studio.publish(about, self.links.urls(about)).url)
        self.page.wait_for_selector(".mm")

    def choose(self, name: str) -> None:
        browser.choose(self.page, name)

    def submit(self, about: Item) -> Annotation:
        """Click "Submit", and ask the API what was submitted."""
        with self.page.expect_response(
            lambda answer: answer.request.method == "POST" and "/annotations" in answer.url
        ) as answer:
            self.page.get_by_role("button", name="Submit current annotation").click()
        assert answer.value.ok
        found = [parsed for parsed in self.studio.annotations(about.kind) if parsed.item_id == about.id]
        assert not found[0].problems
        return found[0].annotations[0]


@pytest.fixture(scope="module")
def desk(labelstudio_server: Server) -> Iterator[Desk]:
    files: dict[Any, Any] = {}
    expert = labelstudio_server.add_expert(f"browser-{TAG}@hospital.example", "a long password")
    routes = pictures.router(
        PictureLinks("http://x", SECRET), lambda item, sha: files.get((item, sha)), LIMITS
    )
    with (
        hosting(routes) as url,
        LabelStudio(labelstudio_server.url, labelstudio_server.admin.token) as studio,
        browser.logged_in(labelstudio_server, expert) as page,
    ):
        yield Desk(studio, PictureLinks(url, SECRET), files, page)


def test_an_expert_reads_edits_and_submits_an_answer(desk: Desk) -> None:
    about, page = item(Kind.CHAT, f"browser-chat-{TAG}"), desk.page
    desk.open(about)
    text = page.locator(".mm").inner_text()
    assert "What does this chest radiograph show?" in text
    assert "Should it be drained?" in text
    assert about.answer[0] in text
    # The picture is there and is drawn, not only asked for.
    picture = page.locator(".mm-left img.mm-picture")
    page.wait_for_function("document.querySelector('.mm-left img.mm-picture').naturalWidth > 0")
    assert picture.bounding_box()
    desk.choose("Edit")
    page.locator("[data-testid=htx-textbox-edit-button]").click()
    edited = "It is a large effusion on the right side."
    page.locator("[data-testid=textarea-region] textarea").fill(edited)
    page.get_by_text("What is wrong", exact=True).click()
    # Submitting is refused while a required answer is missing.
    page.get_by_role("button", name="Submit current annotation").click()
    page.get_by_text("Say what is wrong.").wait_for()
    page.get_by_role("button", name="OK").click()
    page.keyboard.press("4")
    desk.choose("Major")
    page.get_by_placeholder("No names or dates, please").fill("Sides are swapped.")
    verdict = desk.submit(about).verdict
    assert (verdict.decision, verdict.text) == (Decision.EDIT, edited)
    assert (verdict.error, verdict.severity) == ("wrong_attribute", Severity.MAJOR)
    assert verdict.comment == "Sides are swapped."


def test_an_expert_marks_a_report_with_a_box_and_a_stroke(desk: Desk) -> None:
    about, page = item(Kind.REPORT, f"browser-report-{TAG}"), desk.page
    desk.open(about)
    canvas = page.locator(".mm canvas").first
    canvas.wait_for()
    page.wait_for_timeout(1000)
    frame = canvas.bounding_box()
    assert frame

    def drag(*points: tuple[float, float]) -> None:
        (x, y), *others = [
            (frame["x"] + a * frame["width"], frame["y"] + b * frame["height"]) for a, b in points
        ]
        page.mouse.move(x, y)
        page.mouse.down()
        for x, y in others:
            page.mouse.move(x, y, steps=8)
        page.mouse.up()

    page.get_by_text("pleural effusion", exact=True).first.click()
    drag((0.1, 0.4), (0.35, 0.8))
    page.keyboard.press("Escape")
    page.locator("button[aria-label='brush-tool']").first.click()
    page.get_by_text("cardiomegaly", exact=True).first.click()
    drag((0.5, 0.6), (0.7, 0.65))
    page.keyboard.press("Escape")
    desk.choose("Edit")
    sentences = page.locator("[data-testid=textarea-region]")
    assert sentences.count() == 4
    sentences.nth(2).locator("[data-testid=htx-textbox-edit-button]").click()
    # With one row Label Studio makes it an input, with more a text area.
    sentences.nth(2).get_by_role("textbox").fill("There is a large right pleural effusion.")
    page.get_by_text("Findings that the report lacks").click()
    desk.choose("cardiomegaly")
    desk.choose("Side, size or number")
    desk.choose("Critical")
    verdict = desk.submit(about).verdict
    assert verdict.text == str(about.answer[0]).replace("a small left", "a large right", 1)
    assert verdict.missing == ("cardiomegaly",)
    box, stroke = verdict.regions
    assert (box.label, stroke.label) == ("pleural effusion", "cardiomegaly")
    assert (box.x, box.y) == pytest.approx((0.1, 0.4), abs=0.02)
    assert (box.width, box.height) == pytest.approx((0.25, 0.4), abs=0.02)
    assert box.picture == about.pictures[0].sha256
    assert stroke.mask
    with Image.open(BytesIO(stroke.mask)) as image:
        mask = np.asarray(image) == 255
    assert mask.shape == (384, 384)
    # Painted along the line that the mouse went, and nowhere far from it.
    assert mask[int(0.625 * 384), int(0.6 * 384)]
    assert not mask[:, : int(0.35 * 384)].any()
    assert 0 < mask.mean() < 0.2


def test_an_expert_prefers_one_of_two_answers(desk: Desk) -> None:
    about, page = item(Kind.PREFERENCE, f"browser-pair-{TAG}"), desk.page
    desk.open(about)
    page.locator(".mm-pair").get_by_text("A normal chest.").click()
    assert desk.submit(about).verdict.ranking == (1, 0)


def test_an_expert_ranks_three_answers_by_keyboard(desk: Desk) -> None:
    about, page = ranked(f"browser-rank-{TAG}"), desk.page
    desk.open(about)
    page.locator("[data-ranker-id=a]").focus()
    for key in ("Space", "ArrowDown", "Space"):
        page.keyboard.press(key)
        # The list moves the item with an animation.
        page.wait_for_timeout(700)
    desk.choose("The order is as I want it")
    assert desk.submit(about).verdict.ranking == (1, 0, 2)


def test_an_expert_rates_a_generated_picture(desk: Desk) -> None:
    about, page = item(Kind.PICTURE, f"browser-picture-{TAG}"), desk.page
    desk.open(about)
    for question, stars in enumerate((4, 2)):
        page.locator(".mm .ant-rate").nth(question).locator("li").nth(stars - 1).click()
    desk.choose("Reject")
    desk.choose("Wrong finding")
    desk.choose("Minor")
    verdict = desk.submit(about).verdict
    assert (verdict.realism, verdict.agreement, verdict.decision) == (4, 2, Decision.REJECT)
    assert (verdict.error, verdict.severity, verdict.regions) == ("wrong_finding", Severity.MINOR, ())
