"""Every example of docs/knowledge.md runs, and prints what its comments say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "knowledge.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_examples_run_one_after_the_other(tmp_path, monkeypatch, capsys, typed) -> None:
    pytest.importorskip("rapidfuzz", reason="rapidfuzz is not installed: pip install 'hetgraph[link]'")
    monkeypatch.chdir(tmp_path)
    (turtle,) = blocks("turtle")
    Path("pets.ttl").write_text(turtle)
    names: dict[str, object] = {}
    for code in blocks("python"):
        exec(compile(code, "knowledge.md", "exec"), names)
        printed = capsys.readouterr().out
        for said in re.findall(r"print\(.*\) +# (.*)", code):
            # behind a comma the comment explains
            assert said in printed or said.split(",")[0] in printed or said.startswith("head"), said
    (commands,) = blocks("sh")
    for line in commands.splitlines():
        program, *words = shlex.split(line)
        assert program == "hetgraph"
        assert typed(*words)[0] == 0, line
    assert Path("pets.png").exists()
    assert "cat" in typed("kg", "stats", "pets.npz")[1]
