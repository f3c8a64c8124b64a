"""The encoder: residual networks with named maps, what their cells see, and the importers of their weights.

``resnet`` computes, ``receptive_field`` measures, ``import_keras`` and ``import_torchvision`` read, ``backbone`` packs.
"""
