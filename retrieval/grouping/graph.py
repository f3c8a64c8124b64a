"""From accepted pairs to groups: a chain of photos is not a group yet.

A pair that is not sure by itself needs the others. It is dropped if it contradicts them: if no way around it over a
third photo leads to the same place. And it is dropped if it alone joins two groups.
"""

import itertools
from collections.abc import Iterable, Sequence

import networkx as nx
import numpy as np
from jaxtyping import Float

from retrieval.grouping.examining import Edge

# Two ways lead to the same place if they end, in the middle, less than this share of the region's diagonal apart.
CLOSES = 0.25
# Both sides of a pair that alone joins them are groups if they have so many photos.
DENSE = 3


def grouped(edges: Iterable[Edge]) -> list[tuple[Edge, ...]]:
    """The edges of each group, the largest group first; without the edges that were dropped."""
    graph = nx.Graph()
    for edge in edges:
        graph.add_edge(edge.a, edge.b, edge=edge)
    weak = [edge for _, _, edge in graph.edges(data="edge") if not edge.is_sure]
    graph.remove_edges_from([(edge.a, edge.b) for edge in weak if _contradicts(graph, edge)])
    # Removing a bridge leaves the other bridges what they are.
    for a, b in list(nx.bridges(graph)):
        edge = graph.edges[a, b]["edge"]
        if not edge.is_sure:
            graph.remove_edge(a, b)
            if min(len(nx.node_connected_component(graph, end)) for end in (a, b)) < DENSE:
                graph.add_edge(a, b, edge=edge)
    parts = (graph.subgraph(part).edges(data="edge") for part in nx.connected_components(graph) if len(part) > 1)
    groups = [tuple(edge for _, _, edge in part) for part in parts]
    return sorted(groups, key=lambda group: (-len(names_of(group)), min(names_of(group))))


def names_of(edges: Iterable[Edge]) -> set[str]:
    """The photos of these edges."""
    return {name for edge in edges for name in (edge.a, edge.b)}


def representative(edges: Sequence[Edge]) -> str:
    """The photo with most inliers in all its pairs; of equal ones the first by name."""
    inliers = dict.fromkeys(sorted(names_of(edges)), 0)
    for edge in edges:
        inliers[edge.a] += edge.inliers
        inliers[edge.b] += edge.inliers
    return max(inliers, key=inliers.__getitem__)


def copies_of(edges: Iterable[Edge]) -> list[set[str]]:
    """Sets of photos that are copies of one picture, directly or by others."""
    return [set(part) for part in nx.connected_components(nx.Graph((e.a, e.b) for e in edges if e.copy))]


def _contradicts(graph: "nx.Graph[str]", edge: Edge) -> bool:
    """Whether there are ways around an edge over a third photo, and none closes."""
    thirds = sorted(nx.common_neighbors(graph, edge.a, edge.b))
    return bool(thirds) and not any(_closes(graph, edge, third) for third in thirds)


def _closes(graph: "nx.Graph[str]", edge: Edge, third: str) -> bool:
    """Whether the way over a third photo ends where the edge does, for the corners of the edge's region."""
    x0, y0, x1, y1 = edge.regions[0] - 0.5  # from edges to points
    corners = np.array([[x, y, 1.0] for x, y in itertools.product((x0, x1), (y0, y1))])
    there, back = graph.edges[edge.a, third]["edge"], graph.edges[third, edge.b]["edge"]
    direct = _moved(corners, edge.transform)
    around = _moved(corners, _leading(back, third) @ _leading(there, edge.a))
    size = np.linalg.norm(direct.max(axis=0) - direct.min(axis=0))
    return bool(np.median(np.linalg.norm(direct - around, axis=1)) <= CLOSES * size)


def _leading(edge: Edge, start: str) -> Float[np.ndarray, "3 3"]:
    """The transform of an edge from one of its photos to the other."""
    return edge.transform if edge.a == start else np.linalg.inv(edge.transform)


def _moved(points: Float[np.ndarray, "n 3"], transform: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "n 2"]:
    moved = points @ transform.T
    return moved[:, :2] / moved[:, 2:]
