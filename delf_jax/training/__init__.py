"""Training: photos and their augmentation, networks and losses, recipes, checkpoints and the training loop.

``delf-jax train`` runs it; docs/training.md explains the recipes and how to lay out photos.
"""
