"""A predictor that is fitted on planted objects of three classes."""

import pytest

import localization
from localization.predictor import Predictor
from tests.localization.planted import LABELS, MAPS


@pytest.fixture(scope="session")
def planted_predictor() -> Predictor:
    return localization.fit(MAPS, labels=LABELS)
