"""From w* to what a user sees: ``activation`` maps, ``boxes`` and masks from them, and ``grabcut``, which moves the
outlines of masks to the edges in the photo. ``cells`` finds the cells of a map under a place of the photo.
"""
