"""What every test runs under: warnings are errors, hypothesis is quick and leaves nothing behind."""

from __future__ import annotations

import sys
from collections.abc import Callable

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


@pytest.fixture
def typed(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Type a command; gives exit code, output and errors."""
    from hetgraph import cli

    def type_in(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hetgraph", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return type_in
