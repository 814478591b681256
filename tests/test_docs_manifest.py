"""The example of docs/manifest.md runs on what `hetgraph encode` writes."""

from __future__ import annotations

import re
from pathlib import Path

from test_encoding import light, things  # noqa: F401

PAGE = (Path(__file__).parents[1] / "docs" / "manifest.md").read_text(encoding="utf-8")
BLOCKS = [re.sub("^    ", "", block, flags=re.M) for block in re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", PAGE, re.M)]


def test_a_model_is_trained_from_shards_as_the_page_says(tmp_path, light, typed, monkeypatch, capsys) -> None:  # noqa: F811
    code, _, err = typed(
        "encode", things(tmp_path, 24), "--output", tmp_path / "encoded", "--shards", 3, "--workers", 1
    )
    assert code == 0, err
    monkeypatch.chdir(tmp_path)
    [example] = [block for block in BLOCKS if "import" in block]
    exec(compile(example, "docs/manifest.md", "exec"), {})
    assert 0 <= float(capsys.readouterr().out.split()[-1]) <= 1
