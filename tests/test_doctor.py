"""What the doctor finds in a world with missing and broken packages, and the commands it names."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import tomllib
from pathlib import Path

import pytest
import torch

from hetgraph import doctor

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


@pytest.fixture
def world(monkeypatch):
    """Change versions (None: not installed) and which modules load."""
    version, load = importlib.metadata.version, importlib.import_module
    versions: dict[str, str | None] = dict.fromkeys(("torchvision", "torchaudio", "timm"))
    broken: dict[str, Exception] = {}

    def version_of(name: str) -> str:
        if name not in versions:
            return version(name)
        found = versions[name]
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    def loaded(name: str, *rest):
        if name in broken:
            raise broken[name]
        return load("json") if name in versions else load(name, *rest)

    monkeypatch.setattr(importlib.metadata, "version", version_of)
    monkeypatch.setattr(importlib, "import_module", loaded)
    return versions, broken


def found() -> dict[str, doctor.Finding]:
    findings = doctor.examine()
    assert len({finding.name for finding in findings}) == len(findings)
    return {finding.name: finding for finding in findings}


def test_versions_are_those_that_are_installed(world) -> None:
    report = found()
    assert report["python"].detail.startswith(platform.python_version())
    for name in doctor.CORE:
        assert (report[name].status, report[name].mend) == ("ok", "")
        assert report[name].detail == importlib.metadata.version(name)
    assert report["devices"].detail.startswith(f"cpu ({torch.get_num_threads()} threads)")


def test_packages_and_extras_are_those_of_the_project_file() -> None:
    def names(requirements: list[str]) -> tuple[str, ...]:
        return tuple(line.split(">")[0] for line in requirements)

    project = tomllib.loads(PROJECT.read_text())["project"]
    assert names(project["dependencies"]) == doctor.CORE
    for extra, packages in doctor.EXTRAS.items():
        assert names(project["optional-dependencies"][extra]) == packages


@pytest.mark.parametrize("extra", doctor.EXTRAS)
def test_a_missing_extra_comes_with_the_command_that_installs_it(world, extra) -> None:
    versions, _ = world
    for name in doctor.EXTRAS[extra]:
        versions[name] = "1.2"
    assert found()[f"extra {extra}"].status == "ok"
    versions[doctor.EXTRAS[extra][-1]] = None
    finding = found()[f"extra {extra}"]
    assert (finding.status, finding.detail) == ("missing", doctor.EXTRAS[extra][-1])
    assert finding.mend == f"pip install 'hetgraph[{extra}]'"


def test_a_missing_core_package_comes_with_the_command_that_installs_it(world) -> None:
    world[0]["librosa"] = None
    assert found()["librosa"] == doctor.Finding("librosa", "missing", "not installed", "pip install librosa")


@pytest.mark.parametrize("name", doctor.BOUND_TO_TORCH)
@pytest.mark.parametrize("fault", [ImportError("no"), OSError("undefined symbol"), RuntimeError("operator nms")])
def test_a_companion_of_torch_that_does_not_load_is_to_be_uninstalled(world, name, fault) -> None:
    versions, broken = world
    versions[name], broken[name] = "0.99", fault
    finding = found()[name]
    assert finding.status == "broken"
    assert finding.mend == f"pip uninstall -y {name}"
    assert "0.99" in finding.detail
    assert importlib.metadata.version("torch") in finding.detail


def test_companions_that_load_are_fine_and_absent_ones_are_not_mentioned(world) -> None:
    versions, _ = world
    assert not {"torchvision", "torchaudio", "timm"} & set(found())
    versions["torchvision"] = versions["timm"] = "0.25"
    report = found()
    assert (report["torchvision"].status, report["torchvision"].mend) == ("ok", "")
    assert "timm" not in report


def test_a_package_that_needs_a_broken_torchvision_is_to_be_uninstalled(world) -> None:
    versions, broken = world
    versions["timm"], broken["torchvision"] = "1.0", ImportError("no torchvision")
    assert (found()["timm"].status, found()["timm"].mend) == ("broken", "pip uninstall -y timm")
