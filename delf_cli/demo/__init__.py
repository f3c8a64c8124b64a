"""`delf-jax demo`: the story that it tells, its page, and the photos that come with the package.

``PHOTOS`` is the folder of these photos; PHOTOS.md in it says where each is from.
"""

from pathlib import Path

PHOTOS = Path(__file__).parent / "photos"
