"""Photos on their way to the device: found, read, decoded, turned upright, reduced, and put into batches.

``find`` lists, ``load`` decodes, ``tar_and_parquet`` and ``tfds_sets`` read photos inside larger files, ``buckets`` and
``batching`` make batches of few shapes, ``meter`` counts the seconds.
"""
