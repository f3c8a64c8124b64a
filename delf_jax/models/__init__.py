"""The encoders: networks with named maps, what their cells see, and the importers of their weights.

``resnet``, ``vgg`` and ``vit`` compute, built of ``layers``; ``architectures`` knows them by name; ``receptive_field``
measures; ``import_*`` read other projects' files; ``backbone`` packs.
"""
