"""The batch job: photos to a feature store, in one process, in several, or on a Ray cluster.

``run`` is the job (``extraction_job``). ``shared_job`` and ``processes`` divide it among processes, ``ray_session``,
``ray_pool`` and ``ray_extractor`` among the workers of a cluster. ``run_recorder`` writes the report of a run.
"""

from delf_jax.job.extraction_job import JobOptions, JobReport, PhotoExtractor, Progress, run

__all__ = ["JobOptions", "JobReport", "PhotoExtractor", "Progress", "run"]
