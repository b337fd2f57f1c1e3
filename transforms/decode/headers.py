"""What a file's first bytes claim, held against the bytes that are there.

Decoders shrink a truncated recording to what is left of it, stop at the end of the first
of several joined streams, and believe impossible numbers. So the claims are read here,
byte by byte, before a decoder sees the file.
"""

from __future__ import annotations

from melmill.transforms.core.errors import Cause, RecordingError, Stage
from melmill.transforms.decode import envelopes, flac, mpeg, ogg, sized
from melmill.transforms.decode.claims import Header
from melmill.transforms.decode.tag_ranges import skip_id3v2
from melmill.transforms.store.stored_file import StoredFile


def read_header(file: StoredFile) -> Header:
    """Read what a file claims, and check that the claimed bytes are there.

    Parameters
    ----------
    file
        Read in a few small ranges, whatever its size; only a chained Ogg stream, and an MP3
        of which libsndfile would lose a part, are gone through to their end.

    Returns
    -------
    Header

    Raises
    ------
    RecordingError
        ``truncated``: the file ends before the audio that its header declares.
    """
    header = examine_header(file)
    if header.missing:
        raise RecordingError(Stage.PROBE, Cause.TRUNCATED, header.missing)
    return header


def examine_header(file: StoredFile) -> Header:
    """Read what a file claims, as :func:`read_header` does, and note which bytes are missing.

    Raises
    ------
    RecordingError
        ``truncated``: the file ends within its header. ``corrupt``: another file follows.
    """
    start = skip_id3v2(file)
    magic = file.read_at(start, 16)
    for matches, read in _READERS:
        if all(magic[at : at + len(word)] == word for at, word in matches):
            return read(file, start, magic)
    return mpeg.read_mpeg(file, start)


#: Words that a file begins with (or holds at other places), and who reads such a file.
_READERS = (
    (((0, b"RIFF"), (8, b"WAVE")), sized.read_wave),
    (((0, b"RF64"), (8, b"WAVE")), sized.read_wave),
    (((0, b"BW64"), (8, b"WAVE")), sized.read_wave),
    (((0, b"riff\x2e\x91\xcf\x11"),), sized.read_wave64),
    (((0, b"FORM"), (8, b"AIFF")), sized.read_aiff),
    (((0, b"FORM"), (8, b"AIFC")), sized.read_aiff),
    (((0, b".snd"),), sized.read_au),
    (((0, b"dns."),), sized.read_au),
    (((0, b"caff"),), sized.read_caf),
    (((0, b"NIST_1A\n"),), sized.read_nist),
    (((0, b"fLaC"),), flac.read_flac),
    (((0, b"OggS"),), ogg.read_ogg),
    (((0, bytes.fromhex("3026b2758e66cf11")),), envelopes.read_asf),
    (((0, b"RIFF"), (8, b"AVI ")), envelopes.read_avi),
    (((0, b"FORM"), (8, b"8SVX")), envelopes.read_iff),
    (((0, b"FORM"), (8, b"16SV")), envelopes.read_iff),
    (((0, b"FRM8"),), envelopes.read_dff),
    (((0, b"DSD "),), envelopes.read_dsf),
    (((0, b"Creative Voice F"),), envelopes.read_voc),
    (((0, b".SoX"),), envelopes.read_sox),
    (((0, b"XoS."),), envelopes.read_sox),
    (((0, b"2BIT"),), envelopes.read_avr),
)
