"""Sounds against librosa called directly, sounds of every form, and sounds that cannot be read."""

import io
import os
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch

from hetgraph.encoders import AudioFeatures, LogMel, Mfcc, Pitch
from hetgraph.errors import MediaError

DATA = Path(os.environ.get("HETGRAPH_DATA", Path(__file__).parents[2] / "shared" / "data"))
RATE = 16_000


def tone(hertz, seconds=0.5, rate=RATE, size=0.5):
    return (size * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def stored(sound, rate=RATE, form="WAV", **options):
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, rate, format=form, **options)
    return buffer.getvalue()


@pytest.fixture
def speech():
    rng = np.random.default_rng(0)
    return (tone(180) * np.linspace(0, 1, 8000) + 0.01 * rng.standard_normal(8000)).astype(np.float32)


def librosa_mel(sound, **options):
    """Power in mel bands [F, bands], with librosa's own framing; its window lies in the middle of its FFT."""
    around = np.pad(sound, (56, 56))
    return librosa.feature.melspectrogram(
        y=around, sr=RATE, n_fft=512, win_length=400, hop_length=160, center=False, **options
    ).T


def test_log_mel_equals_librosa(speech):
    [nodes] = LogMel(low=60.0, high=7600.0)([speech])
    power = librosa_mel(speech, n_mels=40, fmin=60.0, fmax=7600.0)
    expected = 10 * np.log10(np.maximum(power, 1e-10)) / 50 + 1
    np.testing.assert_allclose(nodes["x"].numpy(), expected, atol=1e-3)


def test_mfcc_equals_librosa(speech):
    [nodes] = Mfcc(n=13)([speech])
    power = np.maximum(librosa_mel(speech, n_mels=40), 1e-10)
    expected = librosa.feature.mfcc(S=10 * np.log10(power.T), n_mfcc=13).T / 50
    expected[:, 0] += 40**0.5
    np.testing.assert_allclose(nodes["x"].numpy(), expected, atol=5e-3)


@pytest.mark.parametrize("hertz", [80, 150, 220, 440])
def test_pitch_of_a_tone_is_its_frequency(hertz):
    [nodes] = Pitch()([tone(hertz)])
    pitch, voicing, energy = nodes["x"][5:-5].T
    found = 60 * (500 / 60) ** ((pitch + 1) / 2)
    assert (found / hertz - 1).abs().max() < 0.02
    assert voicing.min() > 0.97
    assert energy.mean().item() == pytest.approx(np.log10(0.125) / 5 + 1, abs=0.01)


def test_noise_and_silence_are_not_voiced():
    noise = 0.1 * np.random.default_rng(0).standard_normal(8000)
    assert Pitch()([noise])[0]["x"][:, 1].mean() < 0.3
    assert Pitch()([np.zeros(8000)])[0]["x"].unique(dim=0).tolist() == [[0.0, 0.0, -1.0]]


def test_pitch_of_a_long_sound_does_not_depend_on_chunks(monkeypatch, speech):
    whole = [encoder([speech])[0]["x"] for encoder in (Pitch(), LogMel())]
    for module in ("audio_pitch", "audio_spectrum"):
        monkeypatch.setattr(f"hetgraph.encoders.{module}.CHUNK", 7)
    for encoder, expected in zip((Pitch(), LogMel()), whole, strict=True):
        torch.testing.assert_close(encoder([speech])[0]["x"], expected, rtol=1e-4, atol=1e-5)


def test_times_are_those_of_the_samples():
    time = LogMel()([np.zeros(1000)])[0]["time"]  # windows of 400 samples every 160
    torch.testing.assert_close(time, torch.tensor([[0, 400], [160, 560], [320, 720], [480, 880]]) / RATE)


def test_stacked_nodes_are_mean_and_deviation_of_their_frames(speech):
    single, stacked = LogMel()([speech])[0], LogMel(stack=10)([speech])[0]
    assert len(single["x"]) == 48
    for node, frames in enumerate(single["x"].split(10)):
        expected = torch.cat([frames.mean(0), frames.std(0, correction=0)])
        torch.testing.assert_close(stacked["x"][node], expected, rtol=1e-4, atol=1e-5)
        times = single["time"][node * 10 : node * 10 + len(frames)]
        torch.testing.assert_close(stacked["time"][node], torch.stack([times[0, 0], times[-1, 1]]))


def test_features_side_by_side_are_those_of_the_parts(speech):
    [both] = AudioFeatures([LogMel(), Pitch()])([speech])
    assert torch.equal(both["x"], torch.cat([LogMel()([speech])[0]["x"], Pitch()([speech])[0]["x"]], dim=1))


@pytest.mark.parametrize("encoder", [LogMel(), Mfcc(), Pitch(), LogMel(stack=3)])
@pytest.mark.parametrize("samples", [1, 10, 399, 400])
def test_a_sound_shorter_than_a_window_is_one_node(encoder, samples):
    [nodes] = encoder([np.full(samples, 0.1)])
    assert len(nodes["x"]) == 1
    assert torch.isfinite(nodes["x"]).all()


def test_silence_is_the_floor_of_the_scale():
    assert LogMel()([np.zeros(8000)])[0]["x"].unique().tolist() == pytest.approx([-1.0])


def test_channels_are_averaged(speech):
    weights = np.linspace(0.5, 1.5, 8)
    eight = speech[:, None] * weights
    for item in (eight, (eight, RATE), stored(eight, subtype="FLOAT")):
        torch.testing.assert_close(LogMel()([item])[0]["x"], LogMel()([speech])[0]["x"], rtol=1e-3, atol=1e-3)


def test_a_lower_rate_is_resampled():
    low = tone(440, rate=8000)
    for item in ((low, 8000), stored(low, 8000, subtype="FLOAT")):
        [nodes] = LogMel()([item])
        direct = LogMel()([librosa.resample(low, orig_sr=8000, target_sr=RATE, res_type="soxr_hq")])[0]
        torch.testing.assert_close(nodes["x"], direct["x"])
        # the tone keeps its place, and nothing appears above the old Nyquist frequency
        torch.testing.assert_close(nodes["x"][:, :15], LogMel()([tone(440)])[0]["x"][:, :15], rtol=0, atol=0.2)
        assert nodes["x"][5:-5, -8:].max() < -0.5


@pytest.mark.parametrize(
    ("form", "tolerance"), [("WAV", 0.02), ("FLAC", 0.02), ("OGG", 0.3), ("MP3", 0.5), ("AIFF", 0.02)]
)
def test_sound_files_of_every_format_are_read(speech, tmp_path, form, tolerance):
    path = tmp_path / "name.bin"  # the content decides, not the name
    path.write_bytes(stored(speech, form=form))
    from_path, from_bytes, direct = LogMel()([path, path.read_bytes(), speech])
    assert torch.equal(from_path["x"], from_bytes["x"])
    strongest = direct["x"].mean(0) > 0
    count = min(len(direct["x"]), len(from_path["x"]))
    gap = (from_path["x"][:count, strongest] - direct["x"][:count, strongest]).abs().median()
    assert gap < tolerance


@pytest.mark.parametrize(
    ("dtype", "scale", "zero"),
    [(np.int16, 2**15, 0), (np.int32, 2**31, 0), (np.uint8, 2**7, 128), (np.int8, 2**7, 0), (np.float64, 1, 0)],
)
def test_integers_are_scaled_by_their_type(dtype, scale, zero):
    sound = np.round(tone(440).astype(np.float64) * 100) / 128
    array = (sound * scale + zero).astype(dtype)
    torch.testing.assert_close(LogMel()([array])[0]["x"], LogMel()([sound])[0]["x"], rtol=1e-4, atol=1e-4)


def test_a_long_sound_is_cut_and_counted(speech):
    encoder = LogMel(max_seconds=0.1)
    for item in (speech, (speech, RATE), stored(speech, subtype="FLOAT")):
        assert torch.equal(encoder([item])[0]["x"], LogMel()([speech[:1600]])[0]["x"])
    assert encoder.truncated == 3
    encoder([speech[:1600], stored(speech[:1600])])
    assert encoder.truncated == 3


def test_a_recording_from_the_wild_is_read():
    folder = DATA / "tuxpaint_stamps" / "speech_fr"
    if not folder.is_dir():
        pytest.skip(f"the recordings are not in {folder}")
    path = min(folder.glob("*.ogg"))
    [nodes] = AudioFeatures([LogMel(stack=10), Pitch(stack=10)])([path])
    seconds = soundfile.info(path).duration
    assert nodes["time"][-1, 1].item() == pytest.approx(seconds, abs=0.011)
    assert nodes["x"][:, :40].mean().abs() < 1.0


@pytest.mark.parametrize(
    ("item", "fault"),
    [
        (np.zeros(0, np.float32), "no samples"),
        (np.zeros((0, 2), np.float32), "no samples"),
        ((np.zeros(0), 8000), "no samples"),
        (np.array([0.0, np.nan]), "NaN or infinite"),
        (np.array([0.0, np.inf]), "NaN or infinite"),
        (np.array([0.0, 1e300]), "NaN or infinite"),
        (np.array([0.0, 12000.0]), "about -1 to 1, found 12000"),
        (np.zeros((2, 8000), np.float32), r"got shape \[2, 8000\]"),
        (np.zeros((8000, 0), np.float32), r"got shape \[8000, 0\]"),
        (np.zeros((1, 2, 3)), r"got shape \[1, 2, 3\]"),
        (np.zeros(9, np.int64), "got int64"),
        (np.zeros(9, np.uint16), "got uint16"),
        (np.zeros(9, complex), "got complex128"),
        ((np.zeros(9), 0), "got 0"),
        ((np.zeros(9), float("nan")), "got nan"),
        ((np.zeros(9), "16000"), "got '16000'"),
        ((np.zeros(9), 10), "got 10"),
        ((np.zeros(9), 8000, 1), "got a tuple of 3"),
        (([0.1, 0.2], 8000), "got list"),
    ],
)
def test_arrays_that_are_no_sound_are_refused(item, fault):
    with pytest.raises(MediaError, match=f"^item 1: .*{fault}"):
        LogMel()([np.zeros(400), item])


def bad_files():
    sound = tone(440)
    flac = stored(sound, form="FLAC")
    return {
        "empty": (b"", "got 0 bytes"),
        "text named wav": (b"this is a text", "cannot be decoded: Format not recognised"),
        "cut flac": (flac[: len(flac) // 2], "cannot be decoded"),
        "cut header": (stored(sound)[:10], "cannot be decoded"),
        "no samples": (stored(np.zeros(0)), "no samples"),
        "NaN": (stored(np.array([0, np.nan, 0]), subtype="FLOAT"), "NaN or infinite"),
        "rate of 8 Hz": (stored(sound, rate=8), "expected a rate"),
    }


@pytest.mark.parametrize("fault", bad_files())
def test_bad_files_are_refused_by_path(tmp_path, fault):
    data, message = bad_files()[fault]
    path = tmp_path / "bad.wav"
    path.write_bytes(data)
    with pytest.raises(MediaError, match=rf"^'.*bad\.wav': .*{message}"):
        LogMel()([path])
    with pytest.raises(MediaError, match=rf"^item 0: .*{message}"):
        LogMel()([data])


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path, fault in ((tmp_path / "gone.wav", "no such file"), (tmp_path, "got a folder")):
        with pytest.raises(MediaError, match=fault):
            LogMel()([path])
