"""Makes the songs for the benchmarks: a mix of FLAC, MP3 and Ogg Vorbis, 128 minutes.

    apt-get download wesnoth-1.16-music && dpkg -x wesnoth-1.16-music_*.deb unpacked
    python benchmarks/make_songs.py unpacked songs

The package contains 41 songs in Ogg Vorbis. They are sorted by name. In each group of three,
the first song becomes FLAC (24 bits, as FFmpeg makes from Vorbis), the second becomes MP3
(variable bit rate, quality 2), and the third is copied.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import soundfile

BLOCK_FRAMES = 1 << 16


def encode(source: Path, target: Path, **how: object) -> None:
    """Convert the source file to the target file, block by block."""
    with (
        soundfile.SoundFile(str(source)) as reader,
        soundfile.SoundFile(str(target), "w", reader.samplerate, reader.channels, **how) as writer,
    ):
        while len(block := reader.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
            writer.write(block)


def make_song(number: int, source: Path, folder: Path) -> None:
    """Encode or copy a song; its number decides the format."""
    target = folder / source.stem
    if number % 3 == 0:
        encode(source, target.with_suffix(".flac"), format="FLAC", subtype="PCM_24")
    elif number % 3 == 1:
        quality = {"bitrate_mode": "VARIABLE", "compression_level": 0.2}
        encode(source, target.with_suffix(".mp3"), format="MP3", **quality)
    else:
        shutil.copyfile(source, target.with_suffix(".ogg"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="folder of the unpacked Debian package")
    parser.add_argument("folder", type=Path, help="folder to write to")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    songs = sorted(arguments.package.rglob("*.ogg"))
    for number, source in enumerate(songs):
        make_song(number, source, arguments.folder)
    print(f"{len(songs)} songs")


if __name__ == "__main__":
    main()
