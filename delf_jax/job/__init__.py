"""The batch job: photos to a feature store, in one process, in several, or on a Ray cluster.

``extraction_job`` is the job, ``shared_job`` and ``processes`` divide it among processes, ``ray_session``, ``ray_pool``
and ``ray_extractor`` reach a cluster; ``run_recorder`` writes what happened.
"""
