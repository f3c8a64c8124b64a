"""Training: samples and their augmentation, networks and losses, the recipes, checkpoints and the loop.

``delf-jax train`` is the way in; docs/training.md explains the recipes and the layouts of data.
"""
