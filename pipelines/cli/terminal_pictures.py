"""Pictures in terminals: the graphics protocol of kitty, iTerm2's inline images, and sixels.

The terminal is asked what it can show. The protocols are described in
https://sw.kovidgoyal.net/kitty/graphics-protocol/, https://iterm2.com/documentation-images.html and
https://vt100.net/docs/vt3xx-gp/chapter14.html.
"""

from __future__ import annotations

import base64
import io
import os
import re
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Iterator, Mapping
from enum import StrEnum

import numpy as np
import numpy.typing as npt


class Protocol(StrEnum):
    """The ways to show a picture in a terminal."""

    KITTY = "kitty"
    ITERM2 = "iterm2"
    SIXEL = "sixel"


#: Asks for kitty's protocol with a picture of one pixel, and then for the terminal's attributes,
#: which every terminal answers.
_QUERY = b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b[c"
_ATTRIBUTES = re.compile(rb"\x1b\[\?([0-9;]*)c")
_KITTY_ANSWER = b"\x1b_Gi=31;OK"
#: Attribute of terminals that draw sixels.
_SIXEL_ATTRIBUTE = b"4"
#: Seconds in which a terminal answers, also over a slow connection.
_ANSWER_SECONDS = 1.0
#: Most bytes of a piece of kitty's protocol.
_PIECE_BYTES = 4096
#: Most columns of text that a picture takes, and most pixels of a picture in sixels.
_MOST_COLUMNS, _MOST_PIXELS = 110, 1000
_SIXEL_ROWS, _SIXEL_COLOURS = 6, 128


def find_protocol(environment: Mapping[str, str] = os.environ) -> Protocol | None:
    """Return how the terminal of this process shows pictures; ``None`` if it cannot.

    Standard input and output must both be the terminal: it is asked.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None
    answer = _ask(sys.stdin.fileno(), sys.stdout.fileno())
    if _KITTY_ANSWER in answer:
        return Protocol.KITTY
    names = environment.get("TERM_PROGRAM"), environment.get("LC_TERMINAL")
    if "iTerm.app" in names or "iTerm2" in names or "WezTerm" in names:
        return Protocol.ITERM2
    attributes = _ATTRIBUTES.search(answer)
    if attributes and _SIXEL_ATTRIBUTE in attributes[1].split(b";")[1:]:
        return Protocol.SIXEL
    return None


def _ask(reading: int, writing: int) -> bytes:
    """Return what the terminal answers to the query; what it has answered if it is too slow."""
    before, answer = termios.tcgetattr(reading), b""
    tty.setcbreak(reading)  # answers come without a line end, and are not echoed
    try:
        os.write(writing, _QUERY)
        until = time.monotonic() + _ANSWER_SECONDS
        while not _ATTRIBUTES.search(answer) and (left := until - time.monotonic()) > 0:
            if select.select([reading], [], [], left)[0]:
                answer += os.read(reading, 1024)
    finally:
        termios.tcsetattr(reading, termios.TCSADRAIN, before)
    return answer


def picture_bytes(png: bytes, protocol: Protocol) -> bytes:
    """Return what shows a PNG file in a terminal, with a line end after it."""
    columns = min(_MOST_COLUMNS, shutil.get_terminal_size().columns)
    if protocol is Protocol.KITTY:
        return b"".join(_kitty(png, columns)) + b"\n"
    if protocol is Protocol.ITERM2:
        head = f"\x1b]1337;File=inline=1;size={len(png)};width={columns};preserveAspectRatio=1:"
        return head.encode() + base64.b64encode(png) + b"\a\n"
    return _sixels(png) + b"\n"


def _kitty(png: bytes, columns: int) -> Iterator[bytes]:
    data = base64.b64encode(png)
    for start in range(0, len(data), _PIECE_BYTES):
        more = int(start + _PIECE_BYTES < len(data))
        keys = f"a=T,f=100,q=2,c={columns},m={more}" if start == 0 else f"m={more}"
        yield f"\x1b_G{keys};".encode() + data[start : start + _PIECE_BYTES] + b"\x1b\\"


def _sixels(png: bytes) -> bytes:
    """Return a PNG file as sixels: bands of six rows, each colour of a band after the other."""
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.thumbnail((_MOST_PIXELS, _MOST_PIXELS))
    indexed = image.quantize(_SIXEL_COLOURS)
    palette = np.array(indexed.getpalette(), np.uint8).reshape(-1, 3)
    pixels = np.asarray(indexed)
    parts = [b'\x1bPq"1;1;%d;%d' % (image.width, image.height)]
    for number, colour in enumerate(palette):
        shares = (round(int(value) * 100 / 255) for value in colour)
        parts.append(b"#%d;2;%d;%d;%d" % (number, *shares))
    for first in range(0, len(pixels), _SIXEL_ROWS):
        parts += [*_band(pixels[first : first + _SIXEL_ROWS]), b"-"]
    return b"".join([*parts, b"\x1b\\"])


def _band(rows: npt.NDArray[np.uint8]) -> Iterator[bytes]:
    """Yield the sixels of each colour in a band of up to six rows."""
    weights = (1 << np.arange(len(rows)))[:, None]
    for number in np.unique(rows):
        values = ((rows == number) * weights).sum(axis=0) + 63
        yield b"#%d" % number + _repeated(values) + b"$"


def _repeated(values: npt.NDArray[np.int64]) -> bytes:
    """Return sixels with runs of equal ones as a count.

    >>> _repeated(np.array([63, 63, 63, 63, 64]))
    b'!4?@'
    """
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    counts = np.diff(starts, append=len(values))
    runs = zip(values[starts].tolist(), counts.tolist(), strict=True)
    return b"".join(
        b"!%d%c" % (count, value) if count > 3 else bytes([value]) * count for value, count in runs
    )
