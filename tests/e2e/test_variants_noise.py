"""Noise of variants: measured signal-to-noise ratios, and files that change, lie or are missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melmill.pipelines.config import load_config
from melmill.pipelines.extract import extract, make_job, resolve_catalogue
from melmill.pipelines.snapshots.verify import verify
from melmill.pipelines.variants import pin_files
from melmill.transforms.core.errors import ConfigError
from melmill.transforms.store.folders import Store
from tests import signals
from tests.e2e.variants import BASE, RATE, Rows, rows_of, run, write_songs
from tests.pipeline_runs import here


def write_noises(folder: Path) -> Path:
    signals.write_audio(folder / "long.wav", signals.noise(3.0, RATE, 11), RATE)
    signals.write_audio(folder / "short.flac", signals.noise(0.1, 8000, 12, 2), 8000)
    return folder


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_songs(tmp_path_factory.mktemp("songs"))


@pytest.fixture
def noises(tmp_path: Path) -> Path:
    (tmp_path / "noises").mkdir()
    return write_noises(tmp_path / "noises")


def measured_snr_db(rows: Rows, key: tuple[str, int, int, int]) -> float:
    """Return the ratio in the valid samples of a row of a variant."""
    valid = rows[key]["valid_samples"]
    clean, noisy = (
        np.array(rows[key[0], variant, *key[2:]]["samples"][:valid], np.float64)
        for variant in (0, key[1])
    )
    assert all(value == 0 for value in rows[key]["samples"][valid:])  # padding stays padding
    return float(10 * np.log10(np.mean(clean**2) / np.mean((noisy - clean) ** 2)))


def test_each_chunk_has_a_ratio_from_the_range_over_its_valid_samples(
    songs: Path, noises: Path, tmp_path: Path
) -> None:
    variants = f"variants=[{{noise: {noises}, snr_db: [5, 20]}}, {{noise: {noises}, snr_db: 3}}]"
    run(songs, tmp_path / "set", *BASE, variants)
    card = (tmp_path / "set/README.md").read_text()
    assert "variant 1, noise, snr_db 5 to 20: " in card
    rows = rows_of(tmp_path / "set")
    ratios = [measured_snr_db(rows, key) for key in rows if key[1] == 1]
    assert 5 - 1e-4 < min(ratios) < 9
    assert 16 < max(ratios) < 20 + 1e-4
    assert len(set(ratios)) == len(ratios)
    # float32 rounds each sample to 6e-8 of about ten times the noise: 1e-5 dB, far below 1e-3.
    exact = [measured_snr_db(rows, key) for key in rows if key[1] == 2]
    np.testing.assert_allclose(exact, 3, atol=1e-3)


def test_the_noise_is_a_stretch_of_one_of_the_files(
    songs: Path, noises: Path, tmp_path: Path
) -> None:
    long, _ = soundfile.read(noises / "long.wav", dtype="float64")
    run(songs, tmp_path / "set", *BASE, f"variants=[{{noise: {noises}/long.wav, snr_db: 0}}]")
    rows, places = rows_of(tmp_path / "set"), []
    for key, row in rows.items():
        if key[1] == 1:
            own = rows[key[0], 0, *key[2:]]["samples"]
            added = (np.array(row["samples"]) - own)[: row["valid_samples"]]
            agreement = np.correlate(long, added, "valid")
            place = int(np.argmax(agreement))
            stretch = long[place : place + len(added)]
            scale = np.dot(added, stretch) / np.dot(stretch, stretch)
            np.testing.assert_allclose(added, scale * stretch, atol=1e-6)
            places.append(place)
    assert len(set(places)) > len(places) - 2
    assert max(places) - min(places) > len(long) / 2


@pytest.mark.slow
def test_bits_do_not_depend_on_shards_or_on_places_of_files(
    songs: Path, noises: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copy(noises / "long.wav", moved / "a.wav")
    shutil.copy(noises / "short.flac", moved / "b.flac")
    one, other = (f"variants=[{{noise: {f}, snr_db: [5, 20]}}]" for f in (noises, moved))
    run(songs, tmp_path / "set", *BASE, one)
    run(songs, tmp_path / "other", *BASE, other, "output.min_shards=1", "output.order_seed=3")
    rows = rows_of(tmp_path / "set")
    assert rows == rows_of(tmp_path / "other")
    assert not run(songs, tmp_path / "set").committed  # nothing changed


@pytest.mark.slow
def test_a_changed_file_computes_its_variant_again(
    songs: Path, noises: Path, tmp_path: Path
) -> None:
    variants = f"variants=[{{noise: {noises}, snr_db: 10}}, {{gain_db: -6}}]"
    run(songs, tmp_path / "set", *BASE, variants)
    before = rows_of(tmp_path / "set")
    signals.write_audio(noises / "long.wav", signals.noise(3.0, RATE, 99), RATE)
    assert run(songs, tmp_path / "set").committed
    run(songs, tmp_path / "fresh", *BASE, variants)
    after = rows_of(tmp_path / "set")
    assert after == rows_of(tmp_path / "fresh")
    assert {key[1] for key in after if after[key] != before[key]} == {1}


@pytest.mark.slow
def test_verify_computes_noise_again_and_says_what_is_lost(
    songs: Path, noises: Path, tmp_path: Path
) -> None:
    run(songs, tmp_path / "set", *BASE, f"variants=[{{speed: 0.9, noise: {noises}, snr_db: -5}}]")
    store = Store(str(tmp_path / "set"))
    result = verify(store, 1000, 0, lambda number: None)
    assert result.passed, result.beyond
    assert result.rows == len(rows_of(tmp_path / "set"))
    (noises / "long.wav").unlink()
    result = verify(store, 1000, 0, lambda number: None)
    assert list(result.skipped) == ["the files of variant 1 are gone or have changed"]


def test_each_channel_has_its_own_ratio_and_silence_stays(noises: Path, tmp_path: Path) -> None:
    songs = tmp_path / "songs"
    songs.mkdir()
    loud, quiet = signals.noise(1.0, RATE, 1), signals.noise(1.0, RATE, 2) * 0.01
    signals.write_audio(songs / "a.wav", np.stack([loud, quiet], 1), RATE, "wav_float")
    signals.write_audio(songs / "b.wav", np.zeros((RATE, 2), np.float32), RATE)
    variants = f"variants=[{{noise: {noises}, snr_db: 7}}]"
    run(songs, tmp_path / "set", *BASE, "audio.channels=each", variants)
    rows = rows_of(tmp_path / "set")
    for key in (key for key in rows if key[1] == 1):
        if key[0] == "a.wav":
            assert measured_snr_db(rows, key) == pytest.approx(7, abs=1e-3)
        else:
            assert not np.any(rows[key]["samples"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "variants.0: .*holds no files"),
        (b"no audio at all", "variants.0: .*bad.wav cannot be used: "),
        (b"RIFF", "variants.0: .*bad.wav cannot be used: "),
    ],
)
def test_files_that_cannot_be_used_are_named_before_the_run(
    songs: Path, tmp_path: Path, content: bytes | None, message: str
) -> None:
    (tmp_path / "bad").mkdir()
    if content is not None:
        (tmp_path / "bad/bad.wav").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        run(songs, tmp_path / "set", *BASE, f"variants=[{{noise: {tmp_path}/bad, snr_db: 1}}]")
    assert not (tmp_path / "set").exists()


def test_a_missing_folder_and_a_damaged_file_are_named(songs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        run(songs, tmp_path / "set", *BASE, f"variants=[{{noise: {tmp_path}/no, snr_db: 1}}]")
    damaged = bytearray(signals.encode(signals.noise(4.0, RATE, 3), RATE, "flac"))
    damaged[len(damaged) // 2 : len(damaged) // 2 + 400] = bytes(400)
    (tmp_path / "damaged.flac").write_bytes(damaged)
    with pytest.raises(ConfigError, match=r"damaged\.flac cannot be used"):
        run(
            songs,
            tmp_path / "set",
            *BASE,
            f"variants=[{{noise: {tmp_path}/damaged.flac, snr_db: 1}}]",
        )


def test_a_file_that_changes_during_the_run_ends_it(
    songs: Path, noises: Path, tmp_path: Path
) -> None:
    recipe = load_config(None, [*BASE, f"variants=[{{noise: {noises}/long.wav, snr_db: 1}}]"])
    recipe = pin_files(recipe, str(songs))
    job = make_job(recipe, resolve_catalogue(str(songs), recipe), Store(str(tmp_path / "set")))
    signals.write_audio(noises / "long.wav", signals.noise(4.0, RATE, 99), RATE)
    with pytest.raises(Exception, match=r"long\.wav"):
        extract(job, recipe.as_dict(), here())
    assert not list((tmp_path / "set").glob("_delta_log/*.json"))
