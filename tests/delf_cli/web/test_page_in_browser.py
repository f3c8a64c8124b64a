"""The page in headless Chromium: by mouse, by keyboard alone, and with what is no photo."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.delf_cli.web.conftest import Grouped

sync_api = pytest.importorskip("playwright.sync_api", reason="needs delf-jax[web,browser]")
pytest.importorskip("uvicorn", reason="needs delf-jax[web,browser]")

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
# Milliseconds: the first search also compiles.
WAIT = 120_000
sync_api.expect.set_options(timeout=WAIT)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser: Any, address: str) -> Iterator[Any]:
    """The page, freshly opened; nothing may fail in it unseen, and nothing be asked of another host."""
    page = browser.new_page(viewport={"width": 1100, "height": 800})
    page.set_default_timeout(WAIT)
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on(
        "request", lambda request: None if request.url.startswith((address, "data:")) else failures.append(request.url)
    )
    page.goto(address)
    sync_api.expect(page.locator("#collection")).to_contain_text("photos")
    yield page
    page.close()
    assert not failures


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with opened(browser, address) as page:
        yield page


def settled(page: Any) -> None:
    page.wait_for_selector(".answers[aria-busy=false]")


def drop(page: Any, photo: Path) -> None:
    """What dropping a file makes the browser do."""
    transfer = page.evaluate_handle(
        "([bytes, name]) => { const t = new DataTransfer();"
        "t.items.add(new File([new Uint8Array(bytes)], name)); return t; }",
        [list(photo.read_bytes()), photo.name],
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})


def press_on(page: Any, x: float, y: float) -> tuple[float, float]:
    """The point of the screen at a share of the photo's width and height."""
    box = page.locator("#stage svg").bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def test_a_dropped_photo_is_found_and_a_part_of_it_too(page: Any, photos: Path) -> None:
    drop(page, photos / "graf1.jpg")
    expect = sync_api.expect
    expect(page.locator(".verdict h2")).to_contain_text("Found in")
    first = page.locator(".matches li").first
    expect(first).to_contain_text("graf1.jpg")
    expect(first).to_contain_text("accepted: chance does as well once in 10^")
    expect(first.locator(".proof img")).to_be_visible()
    expect(page.locator("#status")).to_contain_text("Found: graf1.jpg")
    before = page.locator(".verdict p").inner_text()

    page.mouse.move(*press_on(page, 0.1, 0.1))
    page.mouse.down()
    page.mouse.move(*press_on(page, 0.6, 0.9), steps=3)
    page.mouse.up()
    expect(page.locator("svg .box")).to_have_count(1)
    expect(page.locator(".verdict p")).not_to_have_text(before)
    page.get_by_role("button", name="Search the whole photo").click()
    expect(page.locator("svg .box")).to_have_count(0)


def test_boxes_follow_the_slider_and_a_click_is_explained(page: Any, photos: Path) -> None:
    page.set_input_files("#file", photos / "box.jpg")
    page.wait_for_selector(".verdict")
    page.get_by_role("tab", name="Locate the object").click()
    page.wait_for_selector("svg .found.first", state="attached")
    settled(page)
    page.locator("#threshold").fill("0.1")
    low = page.locator("#located p").inner_text()
    page.locator("#threshold").fill("0.9")
    sync_api.expect(page.locator("#located p")).not_to_have_text(low)
    page.mouse.click(*press_on(page, 0.5, 0.5))
    sync_api.expect(page.locator("#why h3")).to_contain_text("Why")
    sync_api.expect(page.locator("#why .places").first.locator("img").first).to_be_visible()
    sync_api.expect(page.locator("svg .ring")).to_have_count(1)


def test_the_keyboard_alone_is_enough(page: Any, photos: Path) -> None:
    expect, keyboard = sync_api.expect, page.keyboard
    page.on("filechooser", lambda chooser: chooser.set_files(photos / "graf1.jpg"))
    keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.id") == "file"
    keyboard.press("Enter")
    expect(page.locator(".verdict h2")).to_contain_text("Found in")
    before = page.locator(".verdict p").inner_text()
    keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.id") == "tab-search"
    keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.id") == "stage"
    for key in ("Enter", "ArrowLeft", "Shift+ArrowUp", "Enter"):
        keyboard.press(key)
    expect(page.locator("svg .box")).to_have_count(1)
    expect(page.locator(".verdict p")).not_to_have_text(before)
    keyboard.press("Escape")
    expect(page.locator("svg .box")).to_have_count(0)
    expect(page.locator("#status")).to_contain_text("Found: graf1.jpg")
    keyboard.press("Shift+Tab")
    keyboard.press("ArrowRight")
    page.wait_for_selector("svg .found.first", state="attached")
    settled(page)
    keyboard.press("Tab")
    for key in ("ArrowRight", "ArrowDown", "Enter"):
        keyboard.press(key)
    expect(page.locator("#why h3")).to_contain_text("Why")


def test_groups_and_their_proofs_by_keyboard_and_back_to_a_photo(browser: Any, grouped: Grouped, photos: Path) -> None:
    with opened(browser, grouped.address) as page:
        expect, keyboard = sync_api.expect, page.keyboard
        keyboard.press("Tab")
        keyboard.press("End")
        expect(page.locator("#view-find")).to_be_hidden()
        expect(page.locator("#status")).to_have_text("1 group; 1 photo in none.")
        expect(page.locator("#view-groups .sheet img")).to_have_count(2)
        expect(page.locator("#view-groups .chip")).to_have_text("copy")
        keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.tagName") == "SUMMARY"
        keyboard.press("Enter")
        expect(page.locator("#view-groups details[open] .proof img")).to_be_visible()
        drop(page, photos / "graf1.jpg")
        expect(page.locator("#view-groups")).to_be_hidden()
        expect(page.locator(".verdict h2")).to_contain_text("Found in")


def test_what_is_no_photo_gets_a_friendly_sentence(page: Any, photos: Path) -> None:
    page.set_input_files("#file", {"name": "notes.jpg", "mimeType": "image/jpeg", "buffer": b"hello"})
    alert = page.get_by_role("alert")
    sync_api.expect(alert).to_contain_text("notes.jpg: is not a photo of a known format")
    page.set_input_files("#file", photos / "graf1.jpg")
    page.wait_for_selector(".verdict")
    sync_api.expect(alert).to_be_hidden()


def test_a_phone_has_room_for_it(browser: Any, address: str, photos: Path) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 700}, color_scheme="dark")
    page.set_default_timeout(WAIT)
    page.goto(address)
    page.set_input_files("#file", photos / "graf1.jpg")
    page.wait_for_selector(".verdict")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    page.close()
