"""Check of a file's header against the bytes that are in the file.

Decoders accept a truncated recording as a shorter one, stop at the end of the first of
several joined streams, and accept impossible numbers. So the header is read here, byte by
byte, before a decoder opens the file.
"""

from __future__ import annotations

from melmill.transforms.core.errors import Cause, RecordingError, Stage
from melmill.transforms.decode import envelopes, flac, mpeg, ogg, wav_aiff_caf
from melmill.transforms.decode.claims import Header
from melmill.transforms.decode.tag_ranges import skip_id3v2
from melmill.transforms.store.stored_file import StoredFile


def read_header(file: StoredFile) -> Header:
    """Return a file's header, after checking that the claimed bytes are in the file.

    Parameters
    ----------
    file
        File to read. A few small ranges are read, whatever its size. Two kinds of files are
        read to their end: a chained Ogg stream, and an MP3 of which libsndfile would lose a
        part.

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
    """Return a file's header like :func:`read_header`, but do not raise for missing bytes.

    The header's ``missing`` describes the missing bytes.

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


#: Bytes that identify a format, with their positions, and the function that reads its header.
_READERS = (
    (((0, b"RIFF"), (8, b"WAVE")), wav_aiff_caf.read_wave),
    (((0, b"RF64"), (8, b"WAVE")), wav_aiff_caf.read_wave),
    (((0, b"BW64"), (8, b"WAVE")), wav_aiff_caf.read_wave),
    (((0, b"riff\x2e\x91\xcf\x11"),), wav_aiff_caf.read_wave64),
    (((0, b"FORM"), (8, b"AIFF")), wav_aiff_caf.read_aiff),
    (((0, b"FORM"), (8, b"AIFC")), wav_aiff_caf.read_aiff),
    (((0, b".snd"),), wav_aiff_caf.read_au),
    (((0, b"dns."),), wav_aiff_caf.read_au),
    (((0, b"caff"),), wav_aiff_caf.read_caf),
    (((0, b"NIST_1A\n"),), wav_aiff_caf.read_nist),
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
