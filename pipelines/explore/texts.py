"""Values as text for pages: lengths, sizes, numbers with units."""

from __future__ import annotations

from typing import Any

#: Functions that templates may call as filters.
FILTERS = (
    *("duration", "place", "number", "reading", "short_uri", "hours", "range_text", "size"),
    "file_name",
)


def duration(seconds: float | None) -> str:
    """Return a length of time.

    >>> duration(0.25), duration(75.5), duration(3725)
    ('0.25 s', '1:15.5', '1:02:05')
    """
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.2f} s"
    if seconds < 3600:
        minutes, rest = divmod(round(seconds, 1), 60)
        return f"{minutes:.0f}:{rest:04.1f}"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def place(seconds: float) -> str:
    """Return a place in a recording.

    >>> place(0.25), place(75.5), place(3725)
    ('0:00.250', '1:15.500', '1:02:05.000')
    """
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    rest = f"{milliseconds / 1000:06.3f}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest}" if minutes >= 60 else f"{minutes}:{rest}"


def hours(seconds: float) -> str:
    """Return a total length.

    >>> hours(90), hours(5400)
    ('1.5 min', '1.5 h')
    """
    return f"{seconds / 60:,.1f} min" if seconds < 3600 else f"{seconds / 3600:,.1f} h"


def number(value: float | None) -> str:
    """Return a number with separators of thousands.

    >>> number(12345), number(0.12345), number(None)
    ('12,345', '0.1235', '–')
    """
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def size(size_bytes: int | None) -> str:
    """Return a size.

    >>> size(999), size(1_234_567)
    ('999 B', '1.2 MB')
    """
    if size_bytes is None:
        return "–"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B"


def reading(value: Any, unit: str = "") -> str:
    """Return a value of the index with its unit.

    >>> reading(-23.456, "LUFS"), reading(True), reading(None), reading(0.00012)
    ('−23.46 LUFS', 'yes', '–', '0.00012')
    >>> reading(float("nan")), reading(float("inf")), reading(1234.0)
    ('nan', 'inf', '1,234')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        text = f"{value:,.2f}" if abs(value) >= 10 or value.is_integer() else f"{value:.4g}"
        text = text.removesuffix(".00")
    else:
        text = f"{value:,}" if isinstance(value, int) else str(value)
    return f"{text if isinstance(value, str) else _minus(text)} {unit}".strip()


def _minus(number_text: str) -> str:
    """Return a number's text with a minus sign instead of a hyphen."""
    return number_text.replace("-", "−")


def range_text(value: str, unit: str = "") -> str:
    """Return a range of a filter for people.

    >>> range_text("10..20", "s"), range_text("..-1"), range_text("60..", "s")
    ('10 to 20 s', 'below −1', 'from 60 s')
    """
    low, dots, high = _minus(value).partition("..")
    text = value if not dots else f"{low} to {high}" if low and high else ""
    text = text or (f"from {low}" if low else f"below {high}")
    return f"{text} {unit}".strip()


def short_uri(uri: str, length: int = 60, catalogue: str = "") -> str:
    """Return the end of a URI, without the folder of its catalogue.

    >>> short_uri("s3://bucket/" + "folder/" * 20 + "song.mp3", 20)
    '…lder/folder/song.mp3'
    >>> short_uri("songs/album/1.mp3", 20, "songs/"), short_uri("songs/1.mp3", 20, "songs/all.csv")
    ('album/1.mp3', '1.mp3')
    """
    for folder in (catalogue.rstrip("/"), catalogue.rpartition("/")[0]):
        if folder and uri.startswith(f"{folder}/"):
            uri = uri[len(folder) + 1 :]
            break
    return uri if len(uri) <= length else f"…{uri[-length:]}"


def file_name(uri: str) -> str:
    """Return what comes after the last slash of a URI.

    >>> file_name("s3://bucket/folder/song.mp3"), file_name("song.mp3")
    ('song.mp3', 'song.mp3')
    """
    return uri.rstrip("/").rsplit("/", 1)[-1]
