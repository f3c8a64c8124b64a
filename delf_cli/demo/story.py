"""The records of what the demo found, which its page shows. Pictures in them are JPEG files."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A photo of the collection as an answer: its name, a small JPEG, the votes, and how sure the match is."""

    name: str
    thumbnail: bytes
    score: float
    inliers: int
    log10_nfa: float
    accepted: bool


@dataclasses.dataclass(frozen=True)
class Query:
    """A query and its ranked answers. A picture that was not drawn is None."""

    name: str
    features: int
    accepted: bool
    candidates: Sequence[Candidate]
    photo: bytes
    proof: bytes | None = None
    heat: bytes | None = None
    keypoints: bytes | None = None


@dataclasses.dataclass(frozen=True)
class TrainingPlace:
    """A place of a training photo that explains a place of another photo; the thumbnail marks it."""

    name: str
    thumbnail: bytes
    importance: float
    similarity: float
    share: float


@dataclasses.dataclass(frozen=True)
class LocatedPhoto:
    """Where the object of a photo was found without labels, and why.

    Attributes:
        name: name of the photo.
        photo: JPEG of the photo, with the explained place marked.
        heat: JPEG of the map over the photo, with the boxes.
        score: largest cosine with the foreground vector w*.
        boxes: [x0, y0, x1, y1] in pixels of the original photo, highest score first.
        excitatory, inhibitory: training places that speak for and against the object at the marked place.
        photos: number of photos that the predictor was fitted on. This photo is not one of them.
    """

    name: str
    photo: bytes
    heat: bytes
    score: float
    boxes: Sequence[tuple[int, ...]]
    excitatory: Sequence[TrainingPlace]
    inhibitory: Sequence[TrainingPlace]
    photos: int


@dataclasses.dataclass(frozen=True)
class GroupOfPhotos:
    """Photos that were grouped: each with its thumbnail, and the log10_nfa of the surest pair."""

    photos: Sequence[tuple[str, bytes]]
    log10_nfa: float
    are_copies: bool


@dataclasses.dataclass(frozen=True)
class Step:
    """A part of the work, and how many seconds it took."""

    name: str
    seconds: float
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Story:
    """Everything that the page shows.

    Attributes:
        partnered: queries whose partner is in the collection, each with the partner's name. The first query also shows
            what features are.
        strangers: queries without a partner.
        members: photos of the collection without a partner, each searched among the others.
        groups: all photos, grouped without knowing which ones are queries.
        located: photos whose object was located without labels.
        threshold: largest log10_nfa that is accepted.
        database: number of photos in the collection.
        photos, features: number of photos and features that were extracted.
        steps: how long each step took, in order.
        environment: a sentence about the machine and the versions.
    """

    partnered: Sequence[tuple[Query, str]]
    strangers: Sequence[Query]
    members: Sequence[Query]
    groups: Sequence[GroupOfPhotos]
    located: Sequence[LocatedPhoto]
    threshold: float
    database: int
    photos: int
    features: int
    steps: Sequence[Step]
    environment: str

    @property
    def queries(self) -> list[Query]:
        """All queries, in the order of the page."""
        return [*(query for query, _ in self.partnered), *self.strangers, *self.members]

    @property
    def found(self) -> int:
        """Number of queries that rank their partner first and accept it."""
        return sum(
            q.accepted and q.candidates[0].name == partner and q.candidates[0].accepted for q, partner in self.partnered
        )

    @property
    def refused(self) -> int:
        """Number of queries without a partner for which nothing was accepted."""
        return sum(not q.accepted for q in (*self.strangers, *self.members))
