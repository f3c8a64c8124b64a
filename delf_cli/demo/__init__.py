"""`delf-jax demo`: ``command`` runs it, ``compute`` finds what it shows, ``page`` writes the HTML page.

``PHOTOS`` is the folder of the packaged photos. PHOTOS.md in it names the source and the licence of each.
"""

from pathlib import Path

PHOTOS = Path(__file__).parent / "photos"
