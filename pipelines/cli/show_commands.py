"""The commands ``show`` and ``play``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melmill.pipelines.cli.app import ConfigOption, QuietOption, SetOption, SourceOption, app
from melmill.pipelines.cli.exit_status import Exit, complain, reporting_errors
from melmill.transforms.core.errors import ConfigError, RecordingError

if TYPE_CHECKING:
    from melmill.pipelines.show.drawings import Drawing
    from melmill.transforms.store.filesystems import StorageOptions

_StorageOption = Annotated[
    list[str],
    typer.Option(
        "--storage-option",
        metavar="KEY=VALUE",
        help="An option of fsspec for the store of the audio or the dataset.",
    ),
]


class Picture(StrEnum):
    """Where a picture is shown."""

    AUTO = "auto"
    KITTY = "kitty"
    ITERM2 = "iterm2"
    SIXEL = "sixel"
    FILE = "file"


@app.command()
def show(
    audio: Annotated[
        str, typer.Argument(metavar="AUDIO|DATASET", help="An audio file, or a dataset's folder.")
    ],
    row: Annotated[
        str | None,
        typer.Argument(
            metavar="ROW", help="Of a dataset: a recording's URI, the end of it, or its id."
        ),
    ] = None,
    chunk: Annotated[
        int, typer.Option("--chunk", min=0, help="Of a dataset: the number of the chunk.")
    ] = 0,
    channel: Annotated[
        int | None,
        typer.Option("--channel", min=0, help="Of a dataset with a row for each channel."),
    ] = None,
    at: Annotated[
        float, typer.Option("--at", min=0, metavar="SECOND", help="Of a file: where to start.")
    ] = 0.0,
    seconds: Annotated[
        float,
        typer.Option("--seconds", min=0.001, max=600, help="Of a file: how much is drawn."),
    ] = 30.0,
    feature: Annotated[
        str | None,
        typer.Option("--feature", metavar="NAME", help="Default: the first with a picture."),
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = [],  # noqa: B006 - typer reads the default
    version: Annotated[
        int | None,
        typer.Option("--version", metavar="N", help="Of a dataset. Default: the current one."),
    ] = None,
    picture: Annotated[
        Picture,
        typer.Option("--picture", help="How the terminal shows pictures; auto: it is asked."),
    ] = Picture.AUTO,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write a PNG file."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file if it exists.")
    ] = False,
    storage_option: _StorageOption = [],  # noqa: B006 - typer reads the default
    source_option: SourceOption = [],  # noqa: B006 - typer reads the default
) -> None:
    """Draw the waveform and the mel spectrogram of a recording, or of a row of a dataset.

    The picture appears in the terminal, if it can show one (kitty, Ghostty, iTerm2, WezTerm, foot,
    and others with sixels). Else it is written to a PNG file in the current folder.

    \b
    melmill show song.mp3
    melmill show song.mp3 --at 60 --seconds 10 --recipe whisper-80
    melmill show dataset/ songs/a.mp3 --chunk 3
    """
    from melmill.pipelines.check import find_dataset
    from melmill.pipelines.config import read_storage_options
    from melmill.pipelines.show.drawings import draw_row
    from melmill.pipelines.snapshots.open import OpenSnapshot

    with reporting_errors(), _naming(audio):
        options = read_storage_options("--storage-option", storage_option)
        store = find_dataset(audio, options)
        if store is None:
            if row is not None:
                raise ConfigError(f"ROW: {row!r}: {audio} is not a dataset, so it has no rows")
            drawing = _draw_file(audio, options, config, settings, at, seconds, feature)
        elif row is None:
            raise ConfigError(f"{audio} is a dataset: name a recording of it, too")
        else:
            sources = read_storage_options("--source-option", source_option)
            opened = OpenSnapshot.at(store, version)
            drawing = draw_row(opened, row, chunk, channel, feature, sources)
        name = Path(f"{_stem(row or audio)}{f'-chunk-{chunk}' if row else ''}.png")
        _show(drawing, picture, output, name, overwrite)


def _draw_file(
    audio: str,
    options: StorageOptions,
    config: str | None,
    settings: list[str],
    at: float,
    seconds: float,
    feature: str | None,
) -> Drawing:
    from melmill.pipelines.api import read_recipe
    from melmill.pipelines.show.drawings import draw_file
    from melmill.transforms.store.objects import StoredObject

    recipe = read_recipe(config, settings)
    return draw_file(StoredObject(audio, storage_options=options), recipe, at, seconds, feature)


def _stem(uri: str) -> str:
    """Return the name of a recording for a file: without folders, extension, and odd characters.

    >>> _stem("s3://songs/a b.mp3"), _stem("..")
    ('a b', 'recording')
    """
    name = uri.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^\w .()+-]", "_", Path(name).stem).strip(". ") or "recording"


def _show(
    drawing: Drawing, picture: Picture, output: Path | None, name: Path, overwrite: bool
) -> None:
    """Show a drawing in the terminal, or write it to a file and print the file's name."""
    from melmill.pipelines.cli.terminal_pictures import Protocol, find_protocol, picture_bytes
    from melmill.pipelines.show.figures import png_of

    if output is not None or picture is Picture.FILE:
        protocol = None
    else:
        protocol = find_protocol() if picture is Picture.AUTO else Protocol(picture.value)
    path = output or name
    if protocol is None and path.is_file() and not overwrite:
        raise ConfigError(
            f"--output {path}: the file exists; give another name, or --overwrite to replace it"
        )
    try:
        png = png_of(drawing)
    except ModuleNotFoundError as error:
        complain(f"{error.name} is not installed: pip install 'melmill[notebook]'")
        raise typer.Exit(Exit.USAGE) from None
    if protocol is not None:
        sys.stdout.buffer.write(picture_bytes(png, protocol))
        sys.stdout.buffer.flush()
        return
    try:
        path.write_bytes(png)
    except OSError as error:
        raise ConfigError(f"--output {path}: cannot be written: {error.strerror}") from error
    print(path)


@app.command()
def play(
    audio: Annotated[str, typer.Argument(metavar="AUDIO", help="An audio file: a path or a URL.")],
    at: Annotated[
        float, typer.Option("--at", min=0, metavar="SECOND", help="Where to start.")
    ] = 0.0,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", min=0.001, help="How much to play. Default: up to the end."),
    ] = None,
    channel: Annotated[
        int | None,
        typer.Option("--channel", min=0, help="Play only this channel; the first is 0."),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend",
            metavar="NAME",
            help="The sound system: pulseaudio, alsa, jack, coreaudio, ...; null plays nowhere. "
            "Default: the first that works.",
        ),
    ] = None,
    storage_option: _StorageOption = [],  # noqa: B006 - typer reads the default
    quiet: QuietOption = False,
) -> None:
    """Play a recording through this machine's sound output. Control-C stops it.

    Plays what melmill's decoders give, whatever the codec, and decodes while it plays.

    \b
    melmill play song.mp3 --at 12.5
    melmill play song.mp3 --at 12.5 --seconds 3 --channel 1
    """
    from melmill.pipelines.config import read_storage_options
    from melmill.pipelines.run import interruption
    from melmill.pipelines.run.progress import counting
    from melmill.transforms.decode.decoders import probe_audio
    from melmill.transforms.store.objects import StoredObject

    interruption.advise("playing has stopped")
    with reporting_errors(), _naming(audio):
        try:
            import miniaudio  # noqa: F401 - checked before anything is read
        except ModuleNotFoundError:
            complain("miniaudio is not installed: pip install 'melmill[play]'")
            raise typer.Exit(Exit.USAGE) from None
        from melmill.pipelines.sound.player import play as play_sound

        options = read_storage_options("--storage-option", storage_option)
        source = StoredObject(audio, storage_options=options)
        header = probe_audio(source)
        with counting("play", "seconds", quiet or not sys.stderr.isatty()) as report:
            play_sound(
                source,
                header,
                at,
                seconds,
                channel,
                backend=backend,
                progress=lambda second: report(round(second)),
            )


@contextmanager
def _naming(audio: str) -> Iterator[None]:
    """Make the error of a recording an error of the command that names the file."""
    try:
        yield
    except RecordingError as error:
        raise ConfigError(f"{audio}: {error.cause}: {error.message}") from error
