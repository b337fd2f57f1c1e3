"""Tests of stored objects: any name opens, every error has its cause, and reads are retried."""

from __future__ import annotations

import errno
import io
import os
import pickle
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest

from melmill.transforms.core.errors import Cause, RecordingError, Stage, UserError
from melmill.transforms.store import retries
from melmill.transforms.store.objects import StoredObject, fingerprint_of
from melmill.transforms.store.stored_file import StoredFile

DATA = bytes(range(256)) * 1000

NAMES = [
    "a b.wav",
    "it's.wav",
    '"q".wav',
    "🎵.wav",
    "a\nb.wav",
    "a#b.wav",
    "100%25.wav",
    "a?b=c.wav",
]
NAMES += [
    "*.wav",
    "[ab].wav",
    "x" * 255,
    "a::b.wav",
    "~",
    os.fsdecode(b"\xff\xfe.wav"),
    "file:a.wav",
]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(retries.RETRYING, "sleep", lambda seconds: None)


class Flaky(io.BytesIO):
    """A file whose first reads fail, as often as given."""

    def __init__(self, failures: int, error: BaseException) -> None:
        super().__init__(DATA)
        self.failures, self.error, self.reads = failures, error, 0

    def readinto(self, buffer):
        self.reads += 1
        if self.failures:
            self.failures -= 1
            raise self.error
        return super().readinto(buffer)


@pytest.fixture
def memory():
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe("/objects/a b%20#1.wav", DATA)
    return "memory://objects/a b%20#1.wav"


# Names


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_any_local_name_opens(tmp_path, name, scheme):
    path = tmp_path / name
    path.write_bytes(DATA)
    source = StoredObject(scheme + str(path))
    with source.open() as file:
        assert file.read() == DATA
    assert source.stat() == (len(DATA), f"mtime:{path.stat().st_mtime_ns}:{len(DATA)}")


def test_a_relative_name_opens(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a::b.wav").write_bytes(DATA)
    assert StoredObject("a::b.wav").open().read(3) == DATA[:3]


def test_a_percent_sign_is_not_decoded(tmp_path):
    (tmp_path / "a b.wav").write_bytes(DATA)
    assert cause_of(StoredObject(f"{tmp_path}/a%20b.wav").open) == Cause.NOT_FOUND


def test_a_remote_object_opens(memory):
    with StoredObject(memory).open() as file:
        assert (file.size_bytes, file.read_at(1000, 8)) == (len(DATA), DATA[1000:1008])


def test_a_source_pickles():
    source = StoredObject("s3://bucket/a.wav", 5, (("anon", True),))
    assert pickle.loads(pickle.dumps(source)) == source


# Errors


def cause_of(call) -> Cause:
    with pytest.raises(RecordingError) as raised:
        call()
    assert raised.value.stage == Stage.READ
    return raised.value.cause


@pytest.mark.parametrize("uri", ["/no/such.wav", "memory://no/such.wav", "file:///no/such.wav"])
def test_what_is_not_there_is_not_found(uri):
    assert cause_of(StoredObject(uri).open) == Cause.NOT_FOUND
    assert cause_of(StoredObject(uri).stat) == Cause.NOT_FOUND


def test_a_directory_and_a_pipe_are_no_objects(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        assert cause_of(StoredObject(str(path)).open) == Cause.STORAGE_ERROR


def test_a_name_that_is_too_long_is_a_storage_error(tmp_path):
    assert cause_of(StoredObject(f"{tmp_path}/{'x' * 256}").open) == Cause.STORAGE_ERROR


def test_an_unknown_scheme_is_the_users_error():
    with pytest.raises(UserError, match="nosuch"):
        StoredObject("nosuch://a/b.wav").open()


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (FileNotFoundError(2, "gone"), Cause.NOT_FOUND),
        (PermissionError(13, "no"), Cause.PERMISSION_DENIED),
        (OSError(errno.EIO, "bad disk"), Cause.STORAGE_ERROR),
        (TimeoutError("slow"), Cause.STORAGE_ERROR),
        (
            type("ClientError", (Exception,), {"__module__": "botocore.exceptions"})("?"),
            "storage_error",
        ),
        (
            type("HttpError", (Exception,), {"__module__": "gcsfs.retry", "code": 403})("?"),
            "permission_denied",
        ),
    ],
)
def test_errors_of_stores_have_their_causes(error, cause):
    def fail():
        raise error

    assert cause_of(lambda: retries.patiently(fail)) == cause


def test_the_message_holds_no_path():
    error = retries.describe_store_error(FileNotFoundError(2, "No such file", "\udcff.wav"))
    error.message.encode()
    assert error.message == "FileNotFoundError: No such file"


@pytest.mark.parametrize("error", [TypeError(), KeyError("x"), MemoryError(), AssertionError()])
def test_our_own_errors_pass(error):
    def fail():
        raise error

    with pytest.raises(type(error)):
        retries.patiently(fail)


# Retries


@pytest.mark.parametrize("failures", [1, 3])
def test_a_short_failure_is_retried(failures):
    file = StoredFile(Flaky(failures, ConnectionResetError()))
    assert file.read() == DATA
    file.raise_kept()


def test_retries_come_to_an_end():
    flaky = Flaky(10**9, ConnectionResetError(errno.ECONNRESET, "reset"))
    file = StoredFile(flaky)
    assert file.read() == b""
    assert cause_of(file.raise_kept) == Cause.STORAGE_ERROR
    assert flaky.reads == 4


def test_a_permanent_error_is_not_retried():
    flaky = Flaky(10**9, PermissionError(13, "no"))
    file = StoredFile(flaky)
    assert cause_of(lambda: file.read_at(0, 1)) == Cause.PERMISSION_DENIED
    assert flaky.reads == 1


def test_a_short_failure_in_mid_file_repeats_and_leaves_out_nothing():
    flaky = Flaky(0, ConnectionResetError())
    file = StoredFile(flaky)
    pieces = []
    while piece := file.read(70_001):
        pieces.append(piece)
        flaky.failures = 2
    assert b"".join(pieces) == DATA


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (OSError(5, "x"), RecordingError),
        (RuntimeError("bug"), RuntimeError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_an_error_is_kept_for_after_the_decoders_call(error, kept):
    file = StoredFile(Flaky(10**9, error))
    buffer = bytearray(8)
    assert file.readinto(buffer) == 0
    assert (file.read(3), file.readinto(buffer), file.tell()) == (b"", 0, 0)
    for _ in range(2):
        with pytest.raises(kept):
            file.raise_kept()


# Files


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(DATA)
    with StoredObject(str(path)).open() as opened:
        yield opened


def test_seeks_and_reads_agree_with_a_plain_file(file):
    plain = io.BytesIO(DATA)
    for offset, whence, size in [
        (10, 0, 5),
        (-7, 2, 20),
        (-3, 1, 1),
        (10**7, 0, 4),
        (0, 0, 70_000),
    ]:
        assert file.seek(offset, whence) == plain.seek(offset, whence)
        assert file.read(size) == plain.read(size)
        assert file.tell() == plain.tell()


def test_a_seek_before_the_start_stays(file):
    file.seek(5)
    assert file.seek(-6, 1) == -1
    assert (file.tell(), file.read(1)) == (5, DATA[5:6])


def test_a_seek_far_beyond_the_end_reads_nothing(file):
    file.seek(2**62)
    assert file.read(10) == b""
    file.raise_kept()


def test_nothing_is_written(file):
    with pytest.raises(io.UnsupportedOperation):
        file.write(b"x")


def test_a_store_without_ranged_reads_is_reported(memory, monkeypatch):
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    monkeypatch.setattr(
        "fsspec.implementations.memory.MemoryFileSystem._open", lambda *a, **k: Pipe()
    )
    assert cause_of(StoredObject(memory).open) == Cause.STORAGE_ERROR


# Fingerprints


@pytest.mark.parametrize(
    ("details", "fingerprint"),
    [
        (
            {"ETag": '"abc-2"', "size": 5, "LastModified": datetime(2024, 1, 1, tzinfo=UTC)},
            "etag:abc-2:5",
        ),
        ({"e_tag": "abc", "size": 5, "version": None}, "etag:abc:5"),
        ({"etag": "0x8D", "size": 5, "content_settings": {}}, "etag:0x8D:5"),
        ({"generation": "17", "etag": "CI", "size": 5}, "generation:17:5"),
        ({"Content-MD5": "xyz==", "size": 5}, "md5:xyz==:5"),
        (
            {"created": datetime(2024, 1, 1, tzinfo=UTC), "size": 5},
            "mtime:2024-01-01T00:00:00+00:00:5",
        ),
        ({"mtime": 1.5, "size": 5}, "mtime:1500000000:5"),
        ({"size": 5}, "size:5"),
    ],
)
def test_every_store_has_its_fingerprint(details, fingerprint):
    assert fingerprint_of(details) == fingerprint


def test_a_listing_and_a_stat_agree(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(DATA)
    os.utime(path, ns=(1_700_000_000_123_456_789,) * 2)
    listed = fsspec.filesystem("file").find(str(tmp_path), detail=True)[str(path)]
    assert fingerprint_of(listed) == StoredObject(str(path)).stat()[1]
    assert fingerprint_of(listed) == f"mtime:1700000000123456789:{len(DATA)}"


def test_a_change_shows_in_the_fingerprint(tmp_path, memory):
    path = tmp_path / "a.wav"
    for write, source in (
        (path.write_bytes, StoredObject(str(path))),
        (
            lambda data: fsspec.filesystem("memory").pipe("/objects/c", data),
            StoredObject("memory://objects/c"),
        ),
    ):
        write(DATA)
        before = source.stat()
        assert source.stat() == before
        write(DATA[::-1])
        assert source.stat() != before
