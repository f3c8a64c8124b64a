"""What photos carry that they do not show: frames of programs, watermarks, captions, time stamps, calibration borders.

Every drawing takes an RGB photo and returns a new one. The overlay depends on the size of the photo alone.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

_FILES = [
    "harbour.tif",
    "market-02.jpg",
    "IMG_4471.jpg",
    "notes.txt",
    "ferry.jpg",
    "invoice_17.pdf",
    "stairs.jpg",
    "old town",
]


def browser(photo: Image.Image) -> Image.Image:
    """The photo inside the window of a program of 1280 x 800 pixels, with tabs, a tool bar, and a list of files."""
    window = Image.new("RGB", (1280, 800), (236, 238, 241))
    pen = ImageDraw.Draw(window)
    pen.rectangle((0, 0, 1280, 36), fill=(52, 58, 70))
    for i, title in enumerate(("Photos - Gallery", "Mail (3)", "Timetable 2019", "New tab")):
        pen.rounded_rectangle(
            (12 + 210 * i, 6, 212 + 210 * i, 42), 8, fill=(236, 238, 241) if i == 0 else (92, 98, 112)
        )
        _write(pen, (26 + 210 * i, 21), title, 15, fill=(30, 30, 34) if i == 0 else (220, 220, 226))
        _write(pen, (196 + 210 * i, 21), "x", 15, fill=(120, 120, 128))
    pen.rounded_rectangle((140, 46, 1000, 76), 14, fill="white")
    _write(pen, (160, 61), "https://photos.example.org/album/2019-07/large?sort=date", 16, fill=(70, 70, 80))
    for i, sign in enumerate(("<", ">", "@", "+", "=", "#")):
        x = (20, 60, 100, 1040, 1090, 1140)[i]
        pen.ellipse((x, 47, x + 28, 75), outline=(90, 96, 110), width=2)
        _write(pen, (x + 9, 60), sign, 18, fill=(60, 60, 70))
    pen.rectangle((0, 84, 230, 766), fill=(222, 226, 232))
    for i, name in enumerate(_FILES * 2):
        y = 104 + 41 * i
        pen.rectangle((14, y, 40, y + 24), fill=((97 * i) % 200, (57 * i + 80) % 200, (31 * i + 40) % 255))
        _write(pen, (50, y + 12), name, 16, fill=(40, 44, 52))
        pen.line((10, y + 33, 220, y + 33), fill=(190, 196, 204))
    pen.rectangle((0, 766, 1280, 800), fill=(52, 58, 70))
    _write(pen, (16, 783), "16 objects   1 selected   3.2 MB   sRGB   zoom 74 %", 15, fill=(220, 220, 226))
    _write(pen, (1130, 783), "14:05  12/07/2019", 15, fill=(220, 220, 226))
    window.paste(ImageOps.pad(photo, (1050, 682), color=(24, 26, 30)), (230, 84))
    return window


def phone(photo: Image.Image) -> Image.Image:
    """The photo in the middle of the screen of a phone of 720 x 1280 pixels, between buttons and comments."""
    screen = Image.new("RGB", (720, 1280), (250, 250, 250))
    pen = ImageDraw.Draw(screen)
    _write(pen, (24, 24), "9:41      LTE      82 %", 22, fill=(40, 40, 40))
    _write(pen, (24, 84), "Picnic", 44, fill=(20, 20, 20))
    for i, colour in enumerate(("#e4405f", "#f7b731", "#20bf6b", "#2d98da", "#8854d0")):
        x = 24 + 140 * i
        pen.ellipse((x, 130, x + 100, 230), fill=colour, outline=(30, 30, 30), width=5)
        pen.polygon((x + 50, 146, x + 80, 206 - 9 * i, x + 20, 206), fill="white")
        _write(pen, (x + 10, 250), ("Nora", "Emil", "Jonas", "Ida", "Mats")[i], 22, fill=(60, 60, 60))
    screen.paste(ImageOps.pad(photo, (720, 540), color="black"), (0, 280))
    for i, sign in enumerate(("<3", "( )", ">>", "[ ]")):
        _write(pen, (24 + 100 * i, 856), sign, 44, fill=(30, 30, 30))
    _write(pen, (24, 906), "1 204 like this   18 comments", 26, fill=(30, 30, 30))
    comments = [
        "emil",
        "What a day!",
        "mats",
        "Where was that?",
        "nora",
        "Behind the old mill",
        "ida",
        "See you on Sunday",
    ]
    for i, text in enumerate(comments):
        _write(pen, (24 + 90 * (i % 2), 950 + 30 * i), text, 24, fill=(20, 20, 20) if i % 2 else (40, 90, 170))
    pen.rectangle((0, 1200, 720, 1280), fill=(235, 235, 238))
    for i in range(5):
        x = 50 + 140 * i
        pen.regular_polygon((x + 20, 1240, 26), 3 + i, fill=(90, 90, 100))
    return screen


def picture_frame(photo: Image.Image) -> Image.Image:
    """The photo inside a carved frame, which is as large in proportion for every photo."""
    width, height = photo.size
    side = round(0.09 * max(photo.size))
    framed = Image.new("RGB", (width + 2 * side, height + 2 * side), (112, 78, 40))
    pen = ImageDraw.Draw(framed)
    for i in range(40):
        for along, length in ((0, framed.width), (1, framed.height)):
            middle = (i + 0.5) * length / 40
            for far in (0, framed.size[1 - along] - side):
                centre = (middle, far + side / 2) if along == 0 else (far + side / 2, middle)
                for j, ring in enumerate((0.42, 0.3, 0.16)):
                    r = ring * side * (0.6 + 0.4 * (i * 7 % 5) / 4)
                    fill = ((196, 160, 84), (92, 60, 28), (236, 206, 130))[j]
                    box = (centre[0] - r, centre[1] - r, centre[0] + r, centre[1] + r)
                    pen.pieslice(box, 47 * i, 47 * i + 280 - 60 * j, fill=fill)
    pen.rectangle((side - 4, side - 4, side + width + 3, side + height + 3), outline=(40, 26, 12), width=4)
    framed.paste(photo, (side, side))
    return framed


def tiled_watermark(photo: Image.Image) -> Image.Image:
    """Half transparent slanted lines of text over the whole photo, as sellers of photos lay them."""
    tile = Image.new("L", (300, 150))
    pen = ImageDraw.Draw(tile)
    _write(pen, (20, 50), "SAMPLE", 44, fill=255)
    _write(pen, (60, 110), "stockbank.example", 22, fill=255)
    pen.ellipse((220, 20, 280, 80), outline=255, width=6)
    wide = Image.new("L", (3000, 3000))
    for y in range(0, 3000, 150):
        for x in range(-300, 3000, 300):
            wide.paste(tile, (x + y % 300, y))
    slanted = wide.rotate(24, resample=Image.Resampling.BICUBIC)
    mask = slanted.crop((500, 500, 500 + photo.width, 500 + photo.height)).point(lambda value: value * 0.45)
    marked = photo.copy()
    marked.paste("white", (0, 0), mask)
    return marked


def corner_watermark(photo: Image.Image) -> Image.Image:
    """A logo and an address in the corner at the bottom right, of the same size in pixels for every photo."""
    marked = photo.copy()
    logo = Image.new("L", (250, 84))
    pen = ImageDraw.Draw(logo)
    pen.ellipse((4, 8, 72, 76), outline=255, width=7)
    pen.polygon((20, 60, 38, 24, 56, 60), fill=255)
    _write(pen, (84, 28), "VIEWFINDER", 26, fill=255)
    _write(pen, (84, 60), "www.viewfinder.example", 14, fill=255)
    corner = photo.width - 262, photo.height - 94
    marked.paste("black", (corner[0] + 2, corner[1] + 2), logo.point(lambda value: value * 0.5))
    marked.paste("white", corner, logo.point(lambda value: value * 0.85))
    return marked


def caption(photo: Image.Image) -> Image.Image:
    """The lower third of a news programme, with a logo above; both as wide in proportion for every photo."""
    marked, unit = photo.copy(), photo.width / 100
    pen = ImageDraw.Draw(marked)
    low = photo.height - 22 * unit
    pen.rectangle((0, low + 4 * unit, photo.width, photo.height - 2 * unit), fill=(16, 36, 110))
    pen.rectangle((0, low, 26 * unit, low + 5 * unit), fill=(190, 20, 30))
    _write(pen, (2 * unit, low + 2.5 * unit), "BREAKING NEWS", 2.8 * unit, fill="white")
    _write(pen, (2 * unit, low + 9 * unit), "Council votes on new bridge", 5.4 * unit, fill="white")
    _write(
        pen, (2 * unit, low + 14.5 * unit), "Ferries stay in service until 2031, says mayor", 3 * unit, fill="yellow"
    )
    pen.rectangle((0, photo.height - 5 * unit, photo.width, photo.height - 2 * unit), fill=(230, 230, 230))
    ticker = "LIVE 18:42 - storm warning for the coast - ALBA 2 : 1 NORD - train strike ends -"
    _write(pen, (unit, photo.height - 3.5 * unit), ticker, 2.2 * unit, fill="black")
    pen.rounded_rectangle((84 * unit, 3 * unit, 97 * unit, 10 * unit), unit, fill=(190, 20, 30))
    _write(pen, (86 * unit, 6.5 * unit), "TV24", 4.2 * unit, fill="white")
    return marked


def time_stamp(photo: Image.Image) -> Image.Image:
    """The orange date of a camera at the bottom right, as high in proportion for every photo."""
    marked, size = photo.copy(), photo.height / 18
    pen = ImageDraw.Draw(marked)
    place = photo.width - 9.4 * size, photo.height - 1.2 * size
    _write(pen, place, "2004 07 12  18:42:07", size, fill=(255, 150, 40), stroke_width=1, stroke_fill=(120, 40, 0))
    return marked


def calibration_border(photo: Image.Image) -> Image.Image:
    """A chessboard, a ruler, colour patches and a mirror ball around the photo, as in pictures of finds."""
    board, side = photo.width // 16, photo.width // 8
    bordered = Image.new("RGB", (photo.width + side, photo.height + side), (205, 205, 200))
    bordered.paste(photo, (side, 0))
    pen = ImageDraw.Draw(bordered)
    for i in range(photo.height // board + 1):
        for j in range(2):
            box = (j * board, i * board, (j + 1) * board, (i + 1) * board)
            pen.rectangle(box, fill="black" if (i + j) % 2 else "white")
    unit = photo.width / 120
    for i in range(71):
        length = (3.0 if i % 10 == 0 else 2.0 if i % 5 == 0 else 1.2) * unit
        x = side + (4 + i) * unit
        pen.line((x, photo.height, x, photo.height + length), fill="black", width=2)
        if i % 10 == 0:
            _write(pen, (x - unit, photo.height + 5 * unit), str(i // 10), 3.4 * unit, fill="black")
    _write(
        pen,
        (side + 6 * unit, photo.height + 10 * unit),
        "cm   Inv. 1897,0512.6   Museum of Finds",
        3 * unit,
        fill="black",
    )
    for i, colour in enumerate(
        ("#735244", "#c29682", "#627a9d", "#576c43", "#8580b1", "#67bdaa", "#d67e2c", "#505ba6")
    ):
        x, y = side + (80 + 9.5 * (i % 4)) * unit, photo.height + (1 + 6.5 * (i // 4)) * unit
        pen.rectangle((x, y, x + 8 * unit, y + 5.5 * unit), fill=colour)
    bordered.paste(_mirror_ball(side - 8), (4, photo.height + 4))
    return bordered


def _mirror_ball(side: int) -> Image.Image:
    """A ball in which a studio with a window and lamps is mirrored."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side * 2 - 1
    r = np.hypot(x, y)
    angle, bent = np.arctan2(y, x), np.arcsin(np.minimum(r, 1))
    u, v = bent * np.cos(angle), bent * np.sin(angle)
    grey = 120 - 70 * v
    grey[(abs(u + 0.5) < 0.25) & (abs(v + 0.4) < 0.3)] = 250
    grey[(abs(u + 0.5) < 0.02) | (np.hypot(u - 0.6, v - 0.2) < 0.12)] = 30
    grey[np.hypot(u - 0.3, v + 0.7) < 0.1] = 255
    grey[r > 0.97] = 200
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")


def _write(pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: float, **look: Any) -> None:
    pen.text(place, text, font=ImageFont.load_default(size=max(8, size)), anchor="lm", **look)


OVERLAYS: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "program window": browser,
    "phone": phone,
    "picture frame": picture_frame,
    "tiled watermark": tiled_watermark,
    "corner watermark": corner_watermark,
    "caption": caption,
    "time stamp": time_stamp,
    "calibration border": calibration_border,
}
