"""Passes over photos that outgrow one machine: workers on a Ray cluster, and several processes of one job.

``ray_session`` reaches a cluster, ``ray_pool`` spreads photos over its workers, ``ray_extractor`` makes an extractor of
them that the batch job cannot tell from a local one.
"""
