"""The command `delf-jax`: one file for each subcommand, named after it; ``main`` finds and runs them.

``options`` holds the shared options, ``report`` what is printed, ``exit_codes`` how the command ends.
``web`` is the page of `delf-jax serve`, ``demo`` is `delf-jax demo` with the packaged photos.
"""
