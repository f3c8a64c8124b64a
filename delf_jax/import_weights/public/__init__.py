"""Weights that others published.

``registry`` lists them, ``download`` fetches them, ``archives`` unpacks them, and ``importing`` makes a model folder
for ``delf_jax.load``.
"""
