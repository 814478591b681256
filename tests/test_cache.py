"""The cache on disk: what is computed, what is kept, and what happens when the disk misbehaves."""

import errno
import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hetgraph.encoders import Cached, HashWords, ImagePatches, LogMel, encoder_from_config
from hetgraph.errors import HetgraphError, MediaError


class Counting(HashWords):
    """HashWords that remembers what it was asked for."""

    def __init__(self, dim=4):
        super().__init__(dim)
        self.calls = []

    def encode(self, items):
        self.calls.append([item.value for item in items])
        return super().encode(items)


def files(folder, pattern="??/*"):
    return sorted(folder.glob(pattern))


def test_a_second_call_does_not_compute(tmp_path):
    encoder = Counting()
    first = Cached(encoder, tmp_path)(["a", "b c"])
    second = Cached(encoder, tmp_path)(["b c", "a"])
    assert encoder.calls == [["a", "b c"]]
    for one, other in zip(first, second[::-1], strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_only_misses_are_computed_in_one_call(tmp_path):
    encoder = Counting()
    cached = Cached(encoder, tmp_path)
    cached(["a", "b"])
    nodes = cached(["c", "a", "d", "c"])
    assert encoder.calls == [["a", "b"], ["c", "d"]]
    assert (cached.hits, cached.misses) == (2, 4)
    assert torch.equal(nodes[0]["x"], nodes[3]["x"])
    nodes[0]["x"].zero_()
    assert nodes[3]["x"].any()  # equal items do not share memory


def test_changed_content_is_computed_again(tmp_path):
    path = tmp_path / "text.txt"
    encoder = Counting()
    cached = Cached(encoder, tmp_path / "cache")
    for text in ("one", "two", "one"):
        path.write_text(text)
        expected = HashWords(4)([text])[0]["x"]
        assert torch.equal(cached([path])[0]["x"], expected)
    assert len(encoder.calls) == 2


def test_a_moved_file_is_found_again(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("one")
    cached = Cached(HashWords(4), tmp_path / "cache")
    cached([tmp_path / "a.txt"])
    cached([tmp_path / "b.txt", b"one"])
    assert (cached.hits, cached.misses) == (2, 1)


def test_other_settings_never_meet_an_old_result(tmp_path):
    for dim in (4, 5):
        cached = Cached(HashWords(dim), tmp_path)
        assert cached(["a"])[0]["x"].shape == (1, dim)
        assert cached.misses == 1


def test_a_new_edition_of_an_encoder_is_computed_again(tmp_path, monkeypatch):
    Cached(HashWords(4), tmp_path)(["a"])
    monkeypatch.setattr(HashWords, "edition", 2)
    cached = Cached(HashWords(4), tmp_path)
    cached(["a"])
    assert cached.misses == 1


def test_arrays_are_told_apart_by_values_type_shape_and_rate(tmp_path):
    cached = Cached(LogMel(), tmp_path)
    sound = np.arange(800, dtype=np.int16)
    items = [sound, (sound, 16_000), (sound, 8000), sound + 1, sound.astype(np.int32), sound.reshape(400, 2)]
    cached(items)
    assert cached.misses == len(items)
    cached([torch.from_numpy(sound), sound.copy()])
    assert cached.misses == len(items)


def test_images_are_told_apart_by_what_is_seen(tmp_path):
    cached = Cached(ImagePatches(2, 2), tmp_path)
    red, blue = Image.new("P", (4, 4)), Image.new("P", (4, 4))
    red.putpalette([255, 0, 0])
    blue.putpalette([0, 0, 255])
    cached([red, blue, red.convert("RGB")])
    assert (cached.hits, cached.misses) == (1, 2)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "flipped", "other names"])
def test_a_damaged_file_is_computed_again_and_replaced(tmp_path, caplog, damage):
    from safetensors.torch import save_file

    expected = Cached(HashWords(4), tmp_path)(["a"])[0]["x"]
    [path] = files(tmp_path)
    data = bytearray(path.read_bytes())
    if damage == "other names":
        save_file({"y": torch.zeros(1)}, path)
    elif damage == "flipped":
        data[-3] ^= 255
        path.write_bytes(data)
    else:
        path.write_bytes({"cut": data[:-5], "empty": b"", "text": b"hello there, I am text"}[damage])
    cached = Cached(HashWords(4), tmp_path)
    with caplog.at_level(logging.INFO):
        assert torch.equal(cached(["a"])[0]["x"], expected)
    assert cached.misses == 1
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert str(path) in caplog.text
    cached(["a"])
    assert cached.misses == 1


def test_a_full_disk_costs_nothing_but_the_cache(tmp_path, caplog, monkeypatch):
    def full(name, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    cached = Cached(HashWords(4), tmp_path)
    monkeypatch.setattr("os.replace", full)
    nodes = cached(["a", "b"])
    assert torch.equal(nodes[1]["x"], HashWords(4)(["b"])[0]["x"])
    assert cached.write_errors == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]  # once, not for every item
    assert "No space left" in caplog.text
    assert files(tmp_path) == []


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(name, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Cached(HashWords(4), tmp_path)(["a"])
    assert files(tmp_path) == []


def test_what_a_killed_process_left_is_not_read_and_removed_later(tmp_path):
    code = f"""
import os
from hetgraph.encoders import Cached, HashWords
os.replace = lambda name, target: os._exit(9)
Cached(HashWords(4), {str(tmp_path)!r})(["a"])
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 9
    [left] = files(tmp_path)
    cached = Cached(HashWords(4), tmp_path)
    assert left.exists()  # it could belong to a process that is still at work
    cached(["a"])
    assert cached.misses == 1
    os.utime(left, (time.time() - 7200,) * 2)
    Cached(HashWords(4), tmp_path)
    assert [path.suffix for path in files(tmp_path)] == [".safetensors"]


def test_a_file_that_changes_while_it_is_read_is_not_kept(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("before")

    class Slow(HashWords):
        def encode(self, items):
            path.write_text("while it was read")
            return super().encode(items)

    nodes = Cached(Slow(4), tmp_path / "cache")([path])
    assert len(nodes[0]["x"]) == 4
    assert files(tmp_path / "cache") == []


def test_writers_in_parallel_agree(tmp_path):
    texts = [f"word{i % 7}" for i in range(30)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: Cached(HashWords(4), tmp_path)(texts), range(8)))
    expected = HashWords(4)(texts)
    for nodes in results:
        assert all(torch.equal(one["x"], other["x"]) for one, other in zip(nodes, expected, strict=True))
    assert len(files(tmp_path)) == 7


def test_errors_name_the_item_of_the_caller(tmp_path):
    cached = Cached(HashWords(4), tmp_path)
    cached(["a"])
    with pytest.raises(MediaError, match=r"^item 2: text is empty"):
        cached(["a", "b", " "])
    with pytest.raises(MediaError, match=r"^'.*gone\.txt': no such file"):
        cached(["a", tmp_path / "gone.txt"])


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HetgraphError, match="cannot be made"):
        Cached(HashWords(4), tmp_path / "file" / "cache")


def test_the_config_is_that_of_the_encoder(tmp_path):
    cached = Cached(HashWords(4), tmp_path)
    assert type(encoder_from_config(cached.config())) is HashWords
    assert cached.node_type("word") == HashWords(4).node_type("word")
