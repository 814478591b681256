"""What every test runs under: warnings are errors, hypothesis is quick and leaves nothing behind."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "quick",
    deadline=None,
    max_examples=40,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
# for a closer look: pytest --hypothesis-profile=thorough
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=1000)
settings.load_profile("quick")


def pytest_configure(config: pytest.Config) -> None:
    # importing torch_geometric calls torch.jit.script, which recent versions of torch call deprecated
    config.addinivalue_line("filterwarnings", "ignore:`torch.jit.script`:DeprecationWarning")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
