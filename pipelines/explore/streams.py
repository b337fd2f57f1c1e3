"""Answers that are computed while they are sent: pictures as they are drawn, and sound."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from melmill.pipelines.explore.byte_ranges import NotSatisfiableError, parse_range
from melmill.transforms.core.errors import RecordingError

#: Most bytes of an answer to a player that wants all the rest: 24 s of two channels. So a player
#: that waits does not keep a decoder process.
_ANSWER_BYTES = 1 << 22


class Pieces(StreamingResponse):
    """A response in pieces.

    Its generator is closed also if the client goes away. If the generator raises RecordingError,
    the answer ends without its last message, and the server cuts the connection: the client sees
    that something is missing.
    """

    def __init__(self, pieces: Generator[Any, None, None], *args: Any, **options: Any) -> None:
        super().__init__(pieces, *args, **options)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._pieces.close()

    async def stream_response(self, send: Send) -> None:
        """Send the pieces, up to an error of the recording."""
        try:
            await super().stream_response(send)
        except RecordingError:
            return


def answer_bytes(
    request: Request, size: int, tag: str, read: Callable[[int, int], Iterator[bytes]]
) -> Response:
    """Return the bytes of a WAV file that a request wants.

    Parameters
    ----------
    request
        Request with the headers ``Range`` and ``If-Range``, or without.
    size
        Size of the file.
    tag
        Entity tag of the file.
    read
        Function that yields the bytes from a first one to an end.

    Raises
    ------
    RecordingError
        The first bytes cannot be decoded.
    """
    headers = {"Accept-Ranges": "bytes", "ETag": tag}
    wanted = request.headers.get("range")
    if request.headers.get("if-range", tag) != tag:
        wanted = None  # the file has changed since the client read the part that it has
    try:
        chosen = parse_range(wanted, size, _ANSWER_BYTES)
    except NotSatisfiableError:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
    first, stop = chosen or (0, size)
    headers["Content-Length"] = str(stop - first)
    if chosen:
        headers["Content-Range"] = f"bytes {first}-{stop - 1}/{size}"
    status = 206 if chosen else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type="audio/wav")
    pieces = read(first, stop)
    begun = next(pieces)
    return Pieces(_begun(begun, pieces), status, headers, media_type="audio/wav")


def _begun(first: bytes, rest: Iterator[bytes]) -> Generator[bytes, None, None]:
    yield first
    yield from rest
