import base64
import dataclasses
import io
from html.parser import HTMLParser

import pytest
from PIL import Image

from delf_cli.demo.page import render
from delf_cli.demo.story import Candidate, GroupOfPhotos, LocatedPhoto, Query, Step, Story, TrainingPlace


def jpeg(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(file, "JPEG")
    return file.getvalue()


def query(name: str, best: str, *, log10_nfa: float) -> Query:
    accepted = log10_nfa <= -5
    return Query(
        name=name,
        features=1234,
        accepted=accepted,
        candidates=[
            Candidate(best, jpeg("red"), score=9.5, inliers=57, log10_nfa=log10_nfa, accepted=accepted),
            Candidate("another", jpeg("blue"), score=1.5, inliers=4, log10_nfa=float("inf"), accepted=False),
        ],
        photo=jpeg("green"),
        proof=jpeg("white"),
        heat=jpeg("black"),
        keypoints=jpeg("yellow"),
    )


def located(name: str) -> LocatedPhoto:
    return LocatedPhoto(
        name=name,
        photo=jpeg("green"),
        heat=jpeg("black"),
        score=0.157,
        boxes=[(144, 91, 401, 363), (1, 2, 30, 40)],
        excitatory=[TrainingPlace("ca<t>", jpeg("red"), importance=0.00197, similarity=0.19, share=0.031)],
        inhibitory=[],
        photos=21,
    )


@pytest.fixture
def story() -> Story:
    return Story(
        partnered=[(query("wall3", "wall1", log10_nfa=-97.31), "wall1"), (query("b<2>", "c", log10_nfa=-9.0), "b1")],
        strangers=[query("cat", "squirrel", log10_nfa=2.2)],
        members=[query("cup", "saucer", log10_nfa=-4.9), Query("blank", 0, False, [], jpeg("white"))],
        groups=[GroupOfPhotos([("a<1>", jpeg("blue")), ("a2", jpeg("red"))], -31.5, are_copies=True)],
        located=[located("squirrel")],
        threshold=-5.0,
        database=14,
        photos=22,
        features=20_931,
        steps=[Step("Load", 1.5), Step("Extract", 61.25, "22 photos")],
        environment="CPU with 2 cores",
    )


class Page(HTMLParser):
    """Collects what a browser would load, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_from_elsewhere(story: Story) -> None:
    text = render(story)
    page = Page(text)
    assert not page.open  # every element is closed
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    assert "url(" not in text
    assert "@import" not in text
    sources = [attributes["src"] for _, attributes in page.tags if "src" in attributes]
    assert sources
    for source in sources:
        kind, _, data = (source or "").partition(",")
        assert kind == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).format == "JPEG"


def test_every_picture_has_a_text_in_its_place(story: Story) -> None:
    images = [attributes for tag, attributes in Page(render(story)).tags if tag == "img"]
    assert all("alt" in attributes for attributes in images)
    assert "wall3 beside wall1, 57 matching features joined by lines" in [attributes["alt"] for attributes in images]


def test_numbers_and_names_are_told(story: Story) -> None:
    text = Page(render(story)).text
    for told in (
        "20,931",
        "63 s",
        "−97.3",
        "−4.9",
        "∞",
        "61.2 s",
        "CPU with 2 cores",
        "b<2>",
        "a<1>",
        "nearly, log10 NFA −31.5",
    ):
        assert told in text, told
    assert "b<2>" not in render(story)  # escaped
    assert "$" not in text


def test_located_photos_are_explained(story: Story) -> None:
    page = Page(render(story))
    for told in ("box 144, 91, 401, 363", "21 other photos", "share 3.1%, cosine 0.19", "2.0 × 10−3", "ca<t>", "None."):
        assert told in page.text, told
    assert "ca<t>" not in render(story)
    assert "ca<t> with a ring around the place" in [attributes.get("alt") for _, attributes in page.tags]


def test_success_is_counted_strictly(story: Story) -> None:
    # The second query accepts a photo that is not its partner.
    assert (story.found, story.refused) == (1, 3)
    wrong = dataclasses.replace(story, strangers=[query("cat", "squirrel", log10_nfa=-6.0)])
    assert wrong.refused == 2
