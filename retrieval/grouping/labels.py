"""Groups against names: photos whose group disagrees with their name, and names for photos without one."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class LabelledGroup:
    """What the names of its photos say of one group.

    Attributes:
        label: the name that most of its photos have, the first in the alphabet of equally frequent ones; None if no
            photo has a name.
        votes: how many of the photos with a name have it, of how many.
        disagreeing: the photos with other names.
        unnamed: the photos without a name; ``label`` is a proposal for them.
        merged: all names that two photos of the group or more have, if there are several: one of them is another name
            for the same thing, or the group joins two things.
    """

    label: str | None
    votes: tuple[int, int]
    disagreeing: tuple[str, ...]
    unnamed: tuple[str, ...]
    merged: tuple[str, ...]


def labelled(names: Sequence[str], labels: Mapping[str, str]) -> LabelledGroup:
    """Compares the photos of a group with the names that ``labels`` gives some of them.

    >>> labelled(["a", "b", "c", "d"], {"a": "tower", "b": "tower", "c": "bridge"})
    LabelledGroup(label='tower', votes=(2, 3), disagreeing=('c',), unnamed=('d',), merged=())
    """
    counts = Counter(labels[name] for name in names if name in labels)
    label = min(counts, key=lambda each: (-counts[each], each), default=None)
    merged = tuple(sorted(each for each, count in counts.items() if count > 1))
    return LabelledGroup(
        label=label,
        votes=(counts[label] if label is not None else 0, counts.total()),
        disagreeing=tuple(name for name in names if labels.get(name, label) != label),
        unnamed=tuple(name for name in names if name not in labels),
        merged=merged if len(merged) > 1 else (),
    )


def split_labels(groups: Sequence[LabelledGroup]) -> dict[str, list[int]]:
    """The names that several groups have, and the places of these groups.

    They may show one thing from sides that no pair of photos joins, or different things of one name.
    """
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, each in enumerate(groups):
        if each.label is not None:
            places[each.label].append(place)
    return {label: found for label, found in sorted(places.items()) if len(found) > 1}
