"""Photos on their way to the device.

``find`` lists photo files, ``load`` reads them with the help of ``decode``, ``kinds``, ``tiff`` and ``orientation``;
``tar_and_parquet`` and ``tfds_sets`` read photos inside larger files, ``buckets`` and ``batching`` make batches of few
shapes, ``meter`` measures the seconds. ``names`` and ``key_set`` tell photos by their names.
"""
