import csv
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr

from melmill.pipelines.demo import songs as demo
from melmill.pipelines.demo import synthesis
from melmill.pipelines.demo.songs import (
    COLUMNS,
    FORMATS,
    encode,
    make_demo_catalogue,
    perform,
    plan_song,
)
from melmill.pipelines.demo.synthesis import INSTRUMENTS, Note, Room
from melmill.transforms.catalogue.parts import catalogue_parts, list_part, open_catalogue
from melmill.transforms.core.errors import UserError
from melmill.transforms.features.mel import MelExtractor
from melmill.transforms.features.mel_spec import MelSpec

RATE_HZ = 22_050
CHUNK = 3 * RATE_HZ


def decode(path):
    """Return samples shaped [frames, channels], and their rate."""
    if path.suffix != ".m4a":
        return soundfile.read(path, dtype="float32", always_2d=True)
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray() for frame in file.decode(audio=0)]
        return np.concatenate(frames, axis=1).T, file.streams.audio[0].rate


def rows_of(table):
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def audio_files(folder):
    return {path for path in folder.rglob("*") if path.is_file() and path.name != "songs.csv"}


def contents(folder):
    return {path.name: path.read_bytes() for path in audio_files(folder)}


@pytest.fixture(scope="module")
def default_demo(tmp_path_factory):
    return make_demo_catalogue(tmp_path_factory.mktemp("default"))


@pytest.fixture(scope="module")
def many_short(tmp_path_factory):
    return make_demo_catalogue(tmp_path_factory.mktemp("many"), songs=48, seconds=4, seed=7)


@pytest.fixture(scope="module")
def first_six(tmp_path_factory):
    """Return the table of a catalogue with one song of every format and of every instrument."""
    return make_demo_catalogue(tmp_path_factory.mktemp("six"), songs=6, seconds=2)


def test_default_catalogue_is_small(default_demo):
    assert sum(path.stat().st_size for path in default_demo.parent.rglob("*")) < 15e6


def test_every_file_decodes_to_the_requested_length(default_demo):
    for row in rows_of(default_demo):
        samples, rate_hz = decode(default_demo.parent / row["uri"])
        assert samples.shape[1] == 2
        # AAC is padded to whole frames of 1,024 samples.
        assert len(samples) == pytest.approx(20 * rate_hz, abs=1024)
        assert np.isfinite(samples).all()
        assert 0.3 < np.abs(samples).max() < 0.9


def test_formats_and_rates_are_as_declared(default_demo):
    formats = {
        (row["uri"].rpartition(".")[2], decode(default_demo.parent / row["uri"])[1])
        for row in rows_of(default_demo)
    }
    assert formats == {(format.extension, format.rate_hz) for format in FORMATS}
    assert len({rate for _, rate in formats}) == 3


def test_table_names_exactly_the_files(default_demo):
    rows = rows_of(default_demo)
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 24
    assert {default_demo.parent / row["uri"] for row in rows} == audio_files(default_demo.parent)


def test_table_has_every_instrument_equally_often_and_three_songs_an_album(default_demo):
    rows = rows_of(default_demo)
    assert Counter(row["instrument"] for row in rows) == dict.fromkeys(INSTRUMENTS, 4)
    assert set(Counter(row["album"] for row in rows).values()) == {3}
    assert all(60 <= int(row["tempo_bpm"]) <= 180 for row in rows)
    assert len({row["key"] for row in rows}) > 8


def test_melmill_reads_the_demo_as_a_catalogue(first_six):
    catalogue = open_catalogue(str(first_six))
    types = {column.name: column.type for column in catalogue.label_columns}
    assert types == {
        "instrument": "string",
        "key": "string",
        "tempo_bpm": "int64",
        "album": "string",
    }
    recordings = [
        recording for part in catalogue_parts(catalogue) for recording in list_part(catalogue, part)
    ]
    assert len(recordings) == 6
    assert all(Path(recording.uri).is_file() for recording in recordings)


def test_same_seed_gives_the_same_bytes(first_six, tmp_path):
    second_table = make_demo_catalogue(tmp_path, songs=6, seconds=2)
    assert second_table.read_bytes() == first_six.read_bytes()
    second, first = contents(tmp_path), contents(first_six.parent)
    assert second.keys() == first.keys()
    exact = {name for name in second if not name.endswith((".ogg", ".opus"))}
    assert len(exact) == 4
    assert all(second[name] == first[name] for name in exact)


@pytest.mark.parametrize("number", range(6))
def test_same_seed_gives_the_same_samples_and_another_seed_others(number):
    song = perform(plan_song(0, number, 1.0))
    np.testing.assert_array_equal(song, perform(plan_song(0, number, 1.0)))
    other = perform(plan_song(1, number, 1.0))
    assert song.shape != other.shape or not np.allclose(song, other, atol=1e-2)


def test_songs_of_an_instrument_differ():
    planned = [plan_song(0, number, 1.0) for number in range(24)]
    organs = [song for song in planned if song.instrument == "organ"]
    assert len({(song.tonic, song.mode, song.tempo_bpm) for song in organs}) == 4


def test_a_longer_catalogue_begins_with_the_shorter_one():
    rows = [plan_song(5, number, 2.0).row() for number in range(30)]
    assert len({row[0] for row in rows}) == 30
    assert rows[:6] == [plan_song(5, number, 2.0).row() for number in range(6)]


def test_file_names_tell_seeds_and_lengths_apart():
    songs = [plan_song(0, 0, 2.0), plan_song(1, 0, 2.0), plan_song(0, 0, 3.0)]
    assert len({song.uri.rpartition("-")[2] for song in songs}) == 3
    assert plan_song(0, 0, 2).uri == plan_song(0, 0, 2.0).uri


def test_complete_files_are_kept_and_missing_ones_made(tmp_path, monkeypatch):
    table = make_demo_catalogue(tmp_path, songs=3, seconds=1)
    complete, missing, _ = sorted(audio_files(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in (complete, table)}
    missing.unlink()
    performed = []
    monkeypatch.setattr(demo, "perform", lambda song: performed.append(song) or perform(song))
    assert make_demo_catalogue(tmp_path, songs=3, seconds=1) == table
    assert [tmp_path / song.uri for song in performed] == [missing]
    assert missing.exists()
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_an_interrupted_demo_leaves_no_broken_file_and_goes_on(tmp_path, monkeypatch):
    write_bytes = Path.write_bytes

    def write_half(path, content):
        write_bytes(path, content[: len(content) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_half)
        with pytest.raises(KeyboardInterrupt):
            make_demo_catalogue(tmp_path, songs=2, seconds=1)
    assert {path.suffix for path in audio_files(tmp_path)} == {".part"}
    assert not (tmp_path / "songs.csv").exists()
    rows = rows_of(make_demo_catalogue(tmp_path, songs=2, seconds=1))
    assert {tmp_path / row["uri"] for row in rows} == audio_files(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [{"songs": 0}, {"seconds": 0.5}, {"seconds": float("nan")}, {"seconds": 601}, {"seed": -1}],
)
def test_arguments_out_of_bounds_are_refused(tmp_path, wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        make_demo_catalogue(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_the_users_to_change(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="taken: the demo catalogue cannot be written"):
        make_demo_catalogue(tmp_path / "taken", songs=1, seconds=1)


def mean_log_mel(path):
    samples, rate_hz = decode(path)
    mono = soxr.resample(samples.mean(axis=1), rate_hz, RATE_HZ)
    chunks = np.float32(mono[: len(mono) // CHUNK * CHUNK].reshape(-1, CHUNK))
    return MelExtractor(MelSpec(), RATE_HZ, CHUNK)(chunks).mean(axis=(0, 2))


@pytest.mark.parametrize("catalogue", ["default_demo", "many_short"])
def test_nearest_centroid_knows_held_out_albums(catalogue, request):
    table = request.getfixturevalue(catalogue)
    rows = rows_of(table)
    features = np.array([mean_log_mel(table.parent / row["uri"]) for row in rows])
    instruments = np.array([row["instrument"] for row in rows])
    albums = np.array([row["album"] for row in rows])
    correct = 0
    for album in set(albums):
        train, test = albums != album, albums == album
        names = sorted(set(instruments[train]))
        centroids = np.array([features[train & (instruments == name)].mean(0) for name in names])
        distances = np.linalg.norm(features[test, np.newaxis] - centroids, axis=2)
        correct += np.sum(np.array(names)[distances.argmin(axis=1)] == instruments[test])
    assert correct / len(rows) >= 0.9


@pytest.mark.parametrize("rate_hz", [32_000, 44_100, 48_000])
@pytest.mark.parametrize("voice", [synthesis.organ, synthesis.flute, synthesis.pluck])
def test_voices_are_in_tune(voice, rate_hz):
    for frequency_hz in (130.81, 440.0, 1046.5):
        time_s = np.arange(2 * rate_hz) / rate_hz
        note = voice(frequency_hz, time_s, 0.5, np.random.default_rng(0))
        spectrum = np.abs(np.fft.rfft(note * np.hanning(len(note)), 8 * len(note)))
        hertz = np.fft.rfftfreq(8 * len(note), 1 / rate_hz)
        near = np.abs(hertz / frequency_hz - 1) < 0.2
        peak_hz = hertz[near][spectrum[near].argmax()]
        assert abs(1200 * np.log2(peak_hz / frequency_hz)) < 3


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_voices_stay_near_full_scale(instrument):
    for part in INSTRUMENTS[instrument]:
        for colour in (0.0, 1.0):
            time_s = np.arange(22_050) / 44_100
            note = part.voice(220.0, time_s, colour, np.random.default_rng(0))
            assert note.shape == time_s.shape
            assert note.dtype == np.float32
            assert 0.3 < np.abs(note).max() < 2.5


def test_notes_past_the_end_are_cut():
    notes = [Note(0.9, 0.5, synthesis.organ, 440.0), Note(1.5, 0.5, synthesis.organ, 440.0)]
    mix = synthesis.mix_notes(notes, 1.0, 8000, 0.5, np.random.default_rng(0))
    assert mix.shape == (2, 8000)
    assert not mix[:, :7200].any()
    assert mix[:, 7200:].any()


def test_low_notes_are_left_and_high_ones_right():
    for frequency_hz, louder in ((55.0, 0), (1760.0, 1)):
        notes = [Note(0.0, 0.5, synthesis.organ, frequency_hz)]
        mix = synthesis.mix_notes(notes, 0.5, 44_100, 0.5, np.random.default_rng(0))
        assert np.square(mix).sum(axis=1).argmax() == louder


def test_a_room_adds_echoes_and_noise_and_fades_out():
    mix = np.zeros((2, 16_000), np.float32)
    mix[:, 0] = 1
    dry = Room(reverberation_s=0.2, wetness=0.0, noise_dbfs=-60)
    wet = Room(reverberation_s=0.2, wetness=0.5, noise_dbfs=-200)
    noisy = synthesis.record(mix, dry, 8000, np.random.default_rng(0))
    assert noisy[:, 1:8000].std() == pytest.approx(1e-3, rel=0.05)
    echoing = synthesis.record(mix, wet, 8000, np.random.default_rng(0))
    assert np.abs(echoing[:, 1:1600]).max() > 0.01
    assert np.abs(echoing[:, 1700:]).max() < 1e-6
    assert not noisy[:, -1].any()


@pytest.mark.parametrize("format", FORMATS[:6], ids=lambda format: format.extension)
def test_every_format_keeps_left_and_right_apart(format, tmp_path):
    song = np.zeros((2, format.rate_hz), np.float32)
    song[0] = 0.5 * np.sin(2 * np.pi * 440 * np.arange(format.rate_hz) / format.rate_hz)
    path = tmp_path / f"left.{format.extension}"
    path.write_bytes(encode(song, format))
    left, right = decode(path)[0].std(axis=0)
    assert left == pytest.approx(0.5 / np.sqrt(2), rel=0.1)
    assert right < 0.1 * left
