"""The command `delf-jax`: one file a subcommand; ``options``, ``report`` and ``main`` are shared by all.

``web`` is the page in the browser, ``demo`` the story on packaged photos.
"""
