"""Weights of other projects: one file per source, and readers of their file formats. No reader runs foreign code.

``keras``, ``torchvision``, ``delf``, ``vgg`` and ``vit`` bring tensors into the form of our networks; ``public`` lists
and downloads published weights.
"""
