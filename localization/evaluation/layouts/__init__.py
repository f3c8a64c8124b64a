"""Readers of annotations, one file a layout: ``cub``, ``voc`` (with ImageNet), ``coco``, ``yolo``, ``box_csv`` and
``tfds``. ``boxes`` and ``masks`` are what they share; ``yolo_rows`` tells the dialects of YOLO apart.
"""
