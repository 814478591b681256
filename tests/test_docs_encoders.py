"""The examples of docs/encoders.md run and print what they say."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
from extras import needs_av
from PIL import Image
from test_encoders_objects import save_detector

from hetgraph.encoders import LogMel
from hetgraph.encoders.configs import BUILT_IN

PAGE = (Path(__file__).parents[1] / "docs" / "encoders.md").read_text(encoding="utf-8")
BLOCKS = [re.sub("^    ", "", block, flags=re.M) for block in re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", PAGE, re.M)]
CODE = [block for block in BLOCKS if "import" in block]
PRINTED = [block for block in BLOCKS if "import" not in block]


@needs_av
def test_every_example_runs_and_prints_what_the_page_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save_detector(tmp_path / "models" / "detr")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save("photo.jpg")
    Path("glove.6B.100d.txt").write_text(f"two {'1 ' * 99}1\n")
    capsys.readouterr()
    names: dict = {}
    printed = []
    for code in CODE:
        exec(compile(code, "docs/encoders.md", "exec"), names)
        printed.append(capsys.readouterr().out)
    assert len(CODE) == 4
    assert f"prints `{printed[0].strip()}`" in PAGE
    assert [printed[1]] == PRINTED
    assert printed[2].splitlines()[1] == "torch.Size([2, 100]) 1"
    assert f"prints `{printed[3].strip()}`" in PAGE


@pytest.mark.parametrize("cls", BUILT_IN)
def test_every_encoder_is_in_the_table_with_its_settings(cls):
    [row] = [line for line in PAGE.splitlines() if line.startswith(f"| `{cls.__name__}`")]
    own = [name for name in inspect.signature(cls).parameters if name != "local_files_only"]
    elsewhere = set(inspect.signature(LogMel).parameters) if "`LogMel`" in row and cls is not LogMel else set()
    assert {name for name in own if f"`{name}" not in row} <= elsewhere
