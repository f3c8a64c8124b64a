"""The backbones: ``resnet``, ``vgg`` and ``vit``, built of ``layers`` and ``winograd``, return named feature maps.

``architectures`` finds a network by its configuration, ``backbone`` normalises photos and runs it, ``receptive_field``
says which pixels a cell sees, ``pooling`` turns a map into one vector.
"""
