"""``UnsupportedPhoto``: a healthy file of a kind that is not read."""


class UnsupportedPhoto(Exception):
    """A picture that is whole, but of a kind that is not read, or that would be read wrong.

    Attributes:
        kind: what it is, such as "a TIFF of CMYK with alpha".
        remedy: what to do.
    """

    def __init__(self, kind: str, *, remedy: str = "convert it to a JPEG or PNG of 8 bits") -> None:
        super().__init__(kind)
        self.kind = kind
        self.remedy = remedy
