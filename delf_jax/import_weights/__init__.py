"""Weights of other projects: one file a source, and readers of their file formats, none of which runs foreign code.

``keras``, ``torchvision``, ``delf``, ``vgg`` and ``vit`` map tensors to our networks; ``public`` fetches what is
published.
"""
