"""`python -m delf_cli`: the same as the command `delf-jax`."""

from delf_cli.main import process

if __name__ == "__main__":
    process()
