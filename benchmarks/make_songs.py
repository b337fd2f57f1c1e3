"""Makes the songs of the benchmarks: a mix of FLAC, MP3 and Ogg Vorbis, 128 minutes.

    apt-get download wesnoth-1.16-music && dpkg -x wesnoth-1.16-music_*.deb unpacked
    python benchmarks/make_songs.py unpacked songs

The package holds 41 songs in Ogg Vorbis. In the order of their names, the first of three
becomes FLAC (24 bits, as FFmpeg makes of Vorbis), the second MP3 (variable bit rate,
quality 2), the third is copied.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import soundfile

BLOCK_FRAMES = 1 << 16


def encode(source: Path, target: Path, **how: object) -> None:
    """Decode one file into another, block by block."""
    with (
        soundfile.SoundFile(str(source)) as read,
        soundfile.SoundFile(str(target), "w", read.samplerate, read.channels, **how) as write,
    ):
        while len(block := read.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
            write.write(block)


def make_song(number: int, source: Path, folder: Path) -> None:
    """Encode or copy the song of that number."""
    target = folder / source.stem
    if number % 3 == 0:
        encode(source, target.with_suffix(".flac"), format="FLAC", subtype="PCM_24")
    elif number % 3 == 1:
        how = {"bitrate_mode": "VARIABLE", "compression_level": 0.2}
        encode(source, target.with_suffix(".mp3"), format="MP3", **how)
    else:
        shutil.copyfile(source, target.with_suffix(".ogg"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="folder of the unpacked Debian package")
    parser.add_argument("folder", type=Path, help="where to write")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    songs = sorted(arguments.package.rglob("*.ogg"))
    for number, source in enumerate(songs):
        make_song(number, source, arguments.folder)
    print(f"{len(songs)} songs")


if __name__ == "__main__":
    main()
