"""The page behind `delf-jax serve`: what it computes, the photos it keeps, its JSON answers, and who may ask."""
