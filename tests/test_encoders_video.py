"""Videos that the tests make themselves: times against the closed form, pictures against their known colours."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from extras import needs_av
from videos import RATE, colour_of, save_video

from hetgraph.encoders import HashWords, ImageEncoder, ImagePatches, LogMel, VideoFrames, VideoSound
from hetgraph.encoders.media import Item
from hetgraph.encoders.read_video import pictures, sound_track
from hetgraph.errors import HetgraphError, MediaError

pytestmark = needs_av


class MeanColour(ImageEncoder):
    """The mean colour of the lower right quarter and of the upper left one, two nodes."""

    dim = 3

    def settings(self):
        return {}

    def encode(self, items):
        nodes = []
        for item in items:
            rgb = np.asarray(self.read(item), dtype=np.float32)
            height, width = rgb.shape[0] // 2, rgb.shape[1] // 2
            x = np.stack([rgb[height:, width:].mean((0, 1)), rgb[:height, :width].mean((0, 1))])
            nodes.append({"x": torch.from_numpy(x), "box": torch.tensor([[0.5, 0.5, 1, 1], [0, 0, 0.5, 0.5]])})
        return nodes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def video(folder):
    return save_video(folder / "plain.mp4")


def times(rate, length, start=0.0):
    """Closed form: [s + k / rate, s + (k + 1) / rate], the last one up to the end."""
    count = int(np.ceil(length * rate - 1e-9))
    starts = start + np.arange(count) / rate
    return torch.tensor(np.stack([starts, np.minimum(starts + 1 / rate, start + length)], 1), dtype=torch.float32)


@pytest.mark.parametrize("rate", [1.0, 2.5, 0.3, 10.0, 4.0, 25.0])
def test_times_and_pictures_are_those_of_the_closed_form(video, rate):
    [nodes] = VideoFrames(MeanColour(), rate=rate, regions=True)([video])
    expected = times(rate, 2.5)
    torch.testing.assert_close(nodes["time"][::2], expected)
    assert torch.equal(nodes["time"][::2], nodes["time"][1::2])
    shown = [colour_of(int(start * 10 + 1e-4)) for start in expected[:, 0].tolist()]  # the frame shown at that time
    assert (nodes["x"][::2] - torch.tensor(shown, dtype=torch.float32)).abs().max() < 12  # lossy, limited range
    assert nodes["x"][1::2].min() > 235
    assert nodes["box"][1].tolist() == [0.0, 0.0, 0.5, 0.5]


def test_without_regions_a_picture_is_the_mean_of_its_nodes(video):
    [whole] = VideoFrames(MeanColour())([video])
    [parts] = VideoFrames(MeanColour(), regions=True)([video])
    torch.testing.assert_close(whole["x"], parts["x"].reshape(-1, 2, 3).mean(1))
    assert set(whole) == {"x", "time"}


@pytest.mark.parametrize("form", ["mp4", "matroska", "mpegts", "avi"])
def test_containers_of_every_kind_have_the_same_clock(folder, form):
    codec = "mpeg2video" if form == "mpegts" else "mpeg4"
    # a transport stream starts with the priming of its sound; without sound its pictures are at zero
    path = save_video(folder / f"clock.{form}", form=form, codec=codec, tone=None)
    [nodes] = VideoFrames(MeanColour())([path])
    torch.testing.assert_close(nodes["time"], times(1, 2.5), atol=2e-3, rtol=0)


def test_a_path_and_its_bytes_give_the_same_and_the_name_does_not_count(video, folder):
    other = folder / "film.txt"
    other.write_bytes(video.read_bytes())
    for encoder in (VideoFrames(ImagePatches(2, 4)), VideoSound(LogMel())):
        one, two, three = encoder([video, str(other), video.read_bytes()])
        for name, value in one.items():
            assert torch.equal(value, two[name])
            assert torch.equal(value, three[name])
        digests = {encoder.digest(Item(value, "it")) for value in (video, other, video.read_bytes())}
        assert len(digests) == 1


def test_the_sound_is_the_tone_at_the_times_of_its_samples(video):
    [nodes] = VideoSound(LogMel(stack=10))([video])
    direct = LogMel(stack=10)([0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE * 5 // 2) / RATE)])[0]
    count = len(direct["x"])
    torch.testing.assert_close(nodes["time"][: count - 1], direct["time"][: count - 1])
    band = direct["x"][3, :40].argmax()
    assert (nodes["x"][1 : count - 2, :40].argmax(1) == band).all()
    torch.testing.assert_close(nodes["x"][1 : count - 2, band], direct["x"][1 : count - 2, band], atol=0.05, rtol=0)


@pytest.mark.parametrize("start", [0.5, 1.25])
def test_sound_that_begins_later_has_later_times_on_the_same_clock(folder, start):
    path = save_video(folder / f"late{start}.mp4", sound_start=start)
    track = sound_track(Item(path, "it"), path, 100.0)
    loud = np.flatnonzero(np.abs(track.samples) > 0.25)[0] / track.rate + track.start
    assert loud == pytest.approx(start, abs=0.01)
    [sound] = VideoSound(LogMel())([path])
    [frames] = VideoFrames(MeanColour())([path])
    assert sound["time"][0, 0].item() == pytest.approx(track.start)
    assert sound["time"][-1, 1].item() == pytest.approx(start + 2.5, abs=0.1)
    torch.testing.assert_close(frames["time"], times(1, 2.5))
    heard = sound["time"][sound["x"].max(1).values > 0.2]
    assert heard[0, 1].item() == pytest.approx(start, abs=0.05)


def test_pictures_that_begin_later_have_later_times(folder):
    path = save_video(folder / "later.mkv", form="matroska", video_start=7)
    [frames] = VideoFrames(MeanColour())([path])
    [sound] = VideoSound(LogMel())([path])
    torch.testing.assert_close(frames["time"], times(1, 2.5, start=0.7), atol=2e-3, rtol=0)
    assert sound["time"][0, 0].item() == pytest.approx(0.0, abs=0.07)


def test_a_gap_in_the_sound_is_silence(folder):
    import av

    path = folder / "gap.mkv"
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=RATE)
        stream.layout = "stereo"
        for start in (0.0, 2.0):
            block = np.full((1, 2 * RATE), 16384, np.int16)
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="stereo")
            frame.sample_rate, frame.pts = RATE, round(start * RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    track = sound_track(Item(path, "it"), path, 100.0)
    assert len(track.samples) == 3 * RATE
    assert track.samples[::RATE].tolist() == [0.5, 0.0, 0.5]
    with pytest.raises(MediaError, match="found no stream of pictures in it, but audio"):
        VideoFrames(MeanColour())([path])


def test_a_video_without_sound_has_no_nodes_of_sound(folder, video):
    silent = save_video(folder / "silent.mp4", tone=None)
    one, none = VideoSound(LogMel(stack=10))([video, silent])
    assert len(one["x"]) > 20
    assert {name: tuple(value.shape) for name, value in none.items()} == {"x": (0, 80), "time": (0, 2)}
    assert len(VideoFrames(MeanColour())([silent])[0]["x"]) == 3


@pytest.mark.parametrize(("rotation", "corner"), [(90, (0, 1)), (-90, (1, 0)), (180, (1, 1))])
def test_a_video_is_turned_as_it_is_shown(folder, rotation, corner):
    """The white corner moves from top left against the clock: to bottom left by 90 degrees."""
    path = save_video(folder / f"turned{rotation}.mp4", rotation=rotation, frames=5)
    picture = next(pictures(Item(path, "it"), path, 1.0, 10**7)).image
    assert picture.size == ((48, 64) if abs(rotation) == 90 else (64, 48))
    rgb = np.asarray(picture)
    right, below = corner
    quarter = rgb[rgb.shape[0] // 2 :] if below else rgb[: rgb.shape[0] // 2]
    quarter = quarter[:, rgb.shape[1] // 2 :] if right else quarter[:, : rgb.shape[1] // 2]
    assert quarter.mean() > 235


def test_a_long_video_is_cut_and_counted(video):
    encoder = VideoFrames(MeanColour(), rate=10, max_frames=7)
    [nodes] = encoder([video])
    torch.testing.assert_close(nodes["time"], times(10, 2.5)[:7])
    assert encoder.truncated == 1
    encoder = VideoFrames(MeanColour(), rate=10, max_frames=25)
    assert len(encoder([video])[0]["x"]) == 25
    assert encoder.truncated == 0
    sound = VideoSound(LogMel(), max_seconds=1.0)
    assert sound([video])[0]["time"][-1, 1].item() == pytest.approx(1.0, abs=0.011)
    assert sound.truncated == 1


def test_no_more_pictures_are_held_than_a_batch(video, monkeypatch):
    monkeypatch.setattr("hetgraph.encoders.video.BATCH", 4)

    class Counting(MeanColour):
        sizes: ClassVar[list[int]] = []

        def encode(self, items):
            self.sizes.append(len(items))
            return super().encode(items)

    [nodes] = VideoFrames(Counting(), rate=10)([video])
    assert len(nodes["x"]) == 25
    assert Counting.sizes == [4] * 6 + [1]


def test_a_larger_video_than_allowed_is_refused_by_its_size(video):
    with pytest.raises(MediaError, match="64 x 48 pixels are more than max_pixels = 3071"):
        VideoFrames(MeanColour(), max_pixels=3071)([video])
    assert len(VideoFrames(MeanColour(), max_pixels=3072)([video])[0]["x"]) == 3


@pytest.mark.parametrize("share", [0.3, 0.6, 0.85])
@pytest.mark.parametrize("form", ["mp4", "matroska"])
def test_a_video_that_was_cut_off_is_refused_and_names_the_sample(folder, share, form):
    data = save_video(folder / f"whole.{form}", form=form, head_first=form == "mp4", frames=50).read_bytes()
    cut = data[: int(len(data) * share)]
    for encoder in (VideoFrames(MeanColour()), VideoSound(LogMel())):
        with pytest.raises(MediaError, match=r"^sample 'a': video: .*(truncated|cannot be opened)"):
            encoder([cut], names=["sample 'a': video"])


def test_settings_and_encoders_that_do_not_fit_are_refused():
    for wrong, message in (
        (lambda: VideoFrames(LogMel()), "expected an encoder of pictures"),
        (lambda: VideoFrames(HashWords()), "expected an encoder of pictures"),
        (lambda: VideoFrames("ImagePatches"), "expected an encoder of pictures"),
        (lambda: VideoFrames(MeanColour(), rate=0), "rate must be a number"),
        (lambda: VideoFrames(MeanColour(), max_frames=0), "max_frames"),
        (lambda: VideoFrames(MeanColour(), regions=1), "regions must be True or False"),
        (lambda: VideoSound(MeanColour()), "expected an encoder of sounds"),
        (lambda: VideoSound(LogMel(), max_seconds=-1), "max_seconds"),
    ):
        with pytest.raises(HetgraphError, match=message):
            wrong()


def test_without_pyav_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr("hetgraph.encoders.read_video.is_installed", lambda name: False)
    for make in (lambda: VideoFrames(MeanColour()), lambda: VideoSound(LogMel())):
        with pytest.raises(HetgraphError, match=r"the package av is not installed: pip install 'hetgraph\[video\]'"):
            make()


def test_the_fingerprint_follows_the_encoder_inside(monkeypatch):
    before = VideoFrames(ImagePatches()).fingerprint
    assert VideoFrames(ImagePatches(), max_pixels=100).fingerprint == before
    assert VideoFrames(ImagePatches(2)).fingerprint != before
    monkeypatch.setattr(ImagePatches, "edition", 2)
    assert VideoFrames(ImagePatches()).fingerprint != before
