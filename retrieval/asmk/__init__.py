"""Aggregated selective match kernels, ASMK (Tolias, Avrithis and Jegou, IJCV 2016): photos compared by visual words.

``codebook`` assigns descriptors to visual words, ``aggregation`` sums a photo's residuals in every word, and
``inverted_file`` finds the photos that share words with a query.
"""

from retrieval.asmk.aggregation import aggregate
from retrieval.asmk.codebook import Codebook, train
from retrieval.asmk.inverted_file import InvertedFile, Kernel

__all__ = ["Codebook", "InvertedFile", "Kernel", "aggregate", "train"]
