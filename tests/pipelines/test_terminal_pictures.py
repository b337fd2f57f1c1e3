"""Pictures in terminals: a pseudo-terminal that answers as real ones do, and what it receives."""

from __future__ import annotations

import base64
import io
import os
import pty
import re
import select
import subprocess
import sys
import time
import tty
from collections.abc import Mapping

import numpy as np
import pytest
from PIL import Image

from melmill.pipelines.cli.terminal_pictures import Protocol, picture_bytes

#: Answers to the query: those of kitty, of foot (sixels), of xterm without graphics.
KITTY = b"\x1b_Gi=31;OK\x1b\\\x1b[?62;c"
FOOT = b"\x1b[?62;4;22;28c"
XTERM = b"\x1b[?64;1;2;6;9;15;18;21;22c"

_FIND = (
    "from melmill.pipelines.cli.terminal_pictures import find_protocol; import sys;"
    "p = find_protocol(); print('found', p, file=sys.stderr)"
)


def ask(answer: bytes, environment: Mapping[str, str] | None = None) -> tuple[str, float]:
    """Return what a process finds in a terminal with an answer, and the seconds that it took."""
    ours, theirs = pty.openpty()
    names = {k: v for k, v in os.environ.items() if k not in ("TERM_PROGRAM", "LC_TERMINAL")}
    process = subprocess.Popen(
        [sys.executable, "-c", _FIND],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**names, **(environment or {})},
    )
    os.close(theirs)
    asked, started = b"", time.monotonic()
    while b"\x1b[c" not in asked and time.monotonic() - started < 60:
        if select.select([ours], [], [], 0.1)[0]:
            asked += os.read(ours, 1024)
    started = time.monotonic()
    os.write(ours, answer)
    assert process.stderr is not None
    found = process.stderr.read().decode()
    process.wait()
    os.close(ours)
    return found.strip(), time.monotonic() - started


@pytest.mark.parametrize(
    ("answer", "environment", "found"),
    [
        (KITTY, {}, "found kitty"),
        (KITTY, {"TERM_PROGRAM": "WezTerm"}, "found kitty"),
        (FOOT, {}, "found sixel"),
        (XTERM, {}, "found None"),
        (XTERM, {"TERM_PROGRAM": "iTerm.app"}, "found iterm2"),
        (XTERM, {"LC_TERMINAL": "iTerm2"}, "found iterm2"),
    ],
)
def test_a_terminal_is_asked(answer: bytes, environment: dict[str, str], found: str) -> None:
    assert ask(answer, environment)[0] == found


def test_a_terminal_that_does_not_answer_is_not_waited_for_long() -> None:
    found, seconds = ask(b"")
    assert found == "found None"
    assert seconds < 5


def test_without_a_terminal_nothing_is_asked() -> None:
    completed = subprocess.run(
        [sys.executable, "-c", _FIND], capture_output=True, stdin=subprocess.DEVNULL, check=True
    )
    assert completed.stdout == b""
    assert completed.stderr.strip() == b"found None"


def test_the_terminal_is_as_before_after_the_question() -> None:
    ours, theirs = pty.openpty()
    try:
        before = tty.tcgetattr(theirs)
        code = f"{_FIND}"
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE
        )
        os.read(ours, 1024)
        os.write(ours, XTERM)
        process.communicate()
        assert tty.tcgetattr(theirs) == before
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.fixture
def picture() -> Image.Image:
    """Return a picture of three colours, with edges that are no multiples of six."""
    pixels = np.zeros((20, 33, 3), np.uint8)
    pixels[4:9] = (255, 0, 0)
    pixels[:, 10:17] = (0, 102, 255)
    return Image.fromarray(pixels)


@pytest.fixture
def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def test_kitty_receives_the_file_in_pieces(png: bytes) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    for data in (png, file.getvalue()):
        sent = picture_bytes(data, Protocol.KITTY)
        pieces = re.findall(rb"\x1b_G([^;]*);([^\x1b]*)\x1b\\", sent)
        assert base64.b64decode(b"".join(piece for _, piece in pieces)) == data
        assert all(len(piece) <= 4096 for _, piece in pieces)
        keys = [dict(key.split(b"=") for key in text.split(b",")) for text, _ in pieces]
        assert (keys[0][b"a"], keys[0][b"f"], keys[0][b"q"]) == (b"T", b"100", b"2")
        assert [key[b"m"] for key in keys] == [*[b"1"] * (len(keys) - 1), b"0"]


def test_iterm2_receives_the_file(png: bytes) -> None:
    sent = picture_bytes(png, Protocol.ITERM2)
    match = re.fullmatch(rb"\x1b\]1337;File=inline=1;size=(\d+);[^:]*:([^\a]*)\a\n", sent)
    assert match is not None
    assert int(match[1]) == len(png)
    assert base64.b64decode(match[2]) == png


def decode_sixels(data: bytes) -> np.ndarray:
    """Return the picture of sixels, uint8 [rows, columns, 3], as a VT340 draws it."""
    match = re.fullmatch(rb'\x1bPq"1;1;(\d+);(\d+)(.*)\x1b\\\n', data, re.DOTALL)
    assert match is not None
    width, height = int(match[1]), int(match[2])
    pixels = np.zeros((height + 6, width, 3), np.uint8)
    palette, colour, row, column = dict[int, list[int]](), 0, 0, 0
    for token in re.findall(rb"#[\d;]+|!\d+.|[?-~]|\$|-", match[3], re.DOTALL):
        if token[:1] == b"#":
            colour, *rest = map(int, token[1:].split(b";"))
            if rest:
                palette[colour] = [round(share * 255 / 100) for share in rest[1:]]
        elif token == b"$":
            column = 0
        elif token == b"-":
            row, column = row + 6, 0
        else:
            count = int(token[1:-1]) if token[:1] == b"!" else 1
            for bit in range(6):
                if (token[-1] - 63) >> bit & 1:
                    pixels[row + bit, column : column + count] = palette[colour]
            column += count
            assert column <= width
    assert not pixels[height:].any()
    return pixels[:height]


def test_sixels_are_the_picture(picture: Image.Image, png: bytes) -> None:
    drawn = decode_sixels(picture_bytes(png, Protocol.SIXEL))
    assert np.abs(drawn.astype(int) - np.asarray(picture).astype(int)).max() <= 2


def test_sixels_of_many_colours_are_close_to_the_picture() -> None:
    ramp = np.linspace(0, 255, 300).astype(np.uint8)
    pixels = np.stack([np.tile(ramp, (40, 1))] * 3, axis=2)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    drawn = decode_sixels(picture_bytes(file.getvalue(), Protocol.SIXEL))
    assert np.abs(drawn.astype(int) - pixels.astype(int)).max() <= 6
