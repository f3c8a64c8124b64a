"""The tests mirror the packages; while they run, every annotated function checks its arguments' types and shapes."""

from beartype import BeartypeConf, beartype

# Named in pyproject.toml. An int may stand for a float, as PEP 484 has it.
typecheck = beartype(conf=BeartypeConf(is_pep484_tower=True))
