"""Weights that others published: what there is and where, how it is fetched, and how it becomes a model folder.

``registry`` lists, ``download`` fetches, ``archives`` unpacks, ``importing`` makes a folder for ``delf_jax.load``.
"""
