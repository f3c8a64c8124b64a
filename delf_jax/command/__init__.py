"""The `delf-jax` command: one module a subcommand, light to import; each imports what it needs when it runs."""
