"""Aggregated selective match kernels (Tolias, Avrithis and Jegou, IJCV 2016): photos compared word by word.

``codebook`` divides descriptors into visual words, ``aggregation`` sums up a photo's residuals in every word, and
``inverted_file`` finds the photos that share words with a query.
"""

from retrieval.asmk.aggregation import aggregate
from retrieval.asmk.codebook import Codebook, train
from retrieval.asmk.inverted_file import InvertedFile, Kernel

__all__ = ["Codebook", "InvertedFile", "Kernel", "aggregate", "train"]
