"""Encoders turn photos into dense features: ``extractor_encoder`` runs the networks of delf-jax, ``callable_encoder`` a
function of the caller, and ``map_encoder`` reads feature maps from files. ``base`` says what an encoder is.
"""
