"""Tests of stores, on a disk and in memory: a file is complete or does not exist."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from melmill.transforms.core.errors import DatasetError
from melmill.transforms.store.folders import Store
from tests.pipeline_runs import drop_privileges


@pytest.fixture(params=["local", "url", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    roots = {
        "local": str(tmp_path / "data set"),
        "url": f"file://{tmp_path}/dataset",
        "memory": f"memory://{uuid.uuid4().hex}/dataset",
    }
    return Store(roots[request.param])


def test_what_was_put_is_read(store: Store) -> None:
    store.put("a/b.bin", b"content")
    assert store.read("a/b.bin") == b"content"
    with store.open("a/b.bin") as file:
        assert file.read() == b"content"
    assert store.size("a/b.bin") == 7


def test_what_is_not_there_is_not_found(store: Store) -> None:
    assert store.size("a.bin") is None
    with pytest.raises(FileNotFoundError):
        store.read("a.bin")
    with pytest.raises(FileNotFoundError):
        store.open("a.bin")


def test_files_are_replaced(store: Store) -> None:
    store.put("a.bin", b"long content")
    store.put("a.bin", b"short")
    assert store.read("a.bin") == b"short"


def test_an_empty_file_is_a_file(store: Store) -> None:
    store.put("a.bin", b"")
    assert store.size("a.bin") == 0


def test_names_are_relative_to_the_root(store: Store) -> None:
    for name in ("a.bin", "split=train/x y.bin", "split=train/deep/z#%.bin"):
        store.put(name, b"")
    assert sorted(store.names()) == ["a.bin", "split=train/deep/z#%.bin", "split=train/x y.bin"]
    assert sorted(store.names("split=train/deep")) == ["split=train/deep/z#%.bin"]


def test_a_folder_that_is_not_there_holds_nothing(store: Store) -> None:
    assert list(store.names()) == []
    assert list(store.names("staging")) == []


def test_a_published_file_takes_its_name_at_once(store: Store) -> None:
    with store.scratch() as path:
        path.write_bytes(b"half")
        assert store.size("a.bin") is None
        path.write_bytes(b"whole")
        store.publish(path, "a.bin")
    assert store.read("a.bin") == b"whole"


def test_nothing_is_left_of_a_file_that_was_not_finished(store: Store) -> None:
    with pytest.raises(RuntimeError), store.scratch() as path:  # noqa: PT012
        path.write_bytes(b"half")
        raise RuntimeError
    assert list(store.names()) == []
    assert not path.exists()


def test_nothing_is_left_of_the_scratch_of_a_finished_file(store: Store) -> None:
    with store.scratch() as path:
        path.write_bytes(b"whole")
        store.publish(path, "a.bin")
    assert list(store.names()) == ["a.bin"]
    assert not path.exists()


def test_a_removed_folder_is_gone_with_all_it_held(store: Store) -> None:
    store.put("staging/run/a.bin", b"")
    store.put("staging/run/deep/b.bin", b"")
    store.put("kept.bin", b"")
    store.remove("staging/run")
    assert list(store.names()) == ["kept.bin"]


def test_another_runs_files_stay(store: Store) -> None:
    store.put("staging/mine/a.bin", b"")
    store.put("staging/other/b.bin", b"")
    store.remove("staging/mine")
    assert list(store.names()) == ["staging/other/b.bin"]


def test_removing_what_is_not_there_does_nothing(store: Store) -> None:
    store.remove("staging/run")
    assert list(store.names()) == []


def test_an_emptied_folder_is_removed_from_a_disk(tmp_path: Path) -> None:
    store = Store(str(tmp_path), scratch_folder="staging/run/scratch")
    store.put("staging/run/a.bin", b"")
    store.remove("staging/run")
    assert list(tmp_path.iterdir()) == []


def test_a_relative_root_is_below_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Store("out/").put("a.bin", b"x")
    assert (tmp_path / "out" / "a.bin").read_bytes() == b"x"


def test_a_root_that_cannot_be_a_folder_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match=r"cannot write to .*file/dataset"):
        Store(str(tmp_path / "file" / "dataset")).put("a.bin", b"")


def test_only_disks_are_local(tmp_path: Path) -> None:
    assert Store(str(tmp_path)).is_local
    assert not Store("memory://x").is_local


def test_storage_options_reach_the_filesystem(tmp_path: Path) -> None:
    store = Store(str(tmp_path), (("auto_mkdir", True),))
    assert store.filesystem()[0].auto_mkdir


def in_a_process_of_its_own(code: str) -> None:
    """Run code in a process in which file modes also apply to root."""
    completed = subprocess.run(
        [sys.executable, "-c", code], preexec_fn=drop_privileges, capture_output=True, text=True
    )
    assert completed.returncode == 0, completed.stderr


@pytest.mark.parametrize("name", ["locked/a.bin", "locked"])
def test_what_cannot_be_removed_is_named_with_the_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "a.bin").touch()
    (tmp_path / "locked").chmod(0o555)
    in_a_process_of_its_own(
        "from melmill.transforms.store.folders import Store\n"
        "from melmill.transforms.core.errors import DatasetError\n"
        f"try: Store({str(tmp_path)!r}).remove({name!r})\n"
        "except DatasetError as error: message = str(error)\n"
        f"assert {str(tmp_path / 'locked' / 'a.bin')!r} in message, message\n"
        "assert 'Permission denied' in message and 'write permission' in message, message\n"
    )
    assert (tmp_path / "locked" / "a.bin").exists()
    # Do what the message advises.
    (tmp_path / "locked").chmod(0o755)
    Store(str(tmp_path)).remove(name)
    assert not (tmp_path / "locked").exists()


def test_a_folder_that_others_write_to_stays(tmp_path: Path, monkeypatch) -> None:
    store, original = Store(str(tmp_path)), Path.rmdir
    store.put("staging/run/a.bin", b"")

    def write_first(path: Path) -> None:
        (path / "rival.bin").touch()
        original(path)

    monkeypatch.setattr(Path, "rmdir", write_first)
    store.remove("staging/run")
    assert list(store.names("staging/run")) == ["staging/run/rival.bin"]


def test_a_link_is_removed_and_not_what_it_leads_to(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.put("kept/a.bin", b"")
    (tmp_path / "staging").mkdir(exist_ok=True)
    (tmp_path / "staging" / "run").symlink_to(tmp_path / "kept")
    store.remove("staging/run")
    assert list(store.names()) == ["kept/a.bin"]


def test_a_shard_that_cannot_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "device.parquet").symlink_to("/proc/self/mem")  # reading its start fails
    devices = {"folder": "Is a directory", "device": "Invalid argument|Input/output error"}
    for name, problem in devices.items():
        with (
            pytest.raises(DatasetError, match=f"{name}.parquet cannot be read: .*({problem})"),
            store.reading_shard(f"{name}.parquet") as file,
        ):
            file.read(4)


def test_a_shard_with_wrong_content_is_damaged(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    rows = pa.table({"row": list(range(10_000))})
    pq.write_table(rows, tmp_path / "whole.parquet", compression="snappy")
    content = (tmp_path / "whole.parquet").read_bytes()
    store.put("text.parquet", b"no Parquet")
    store.put("zeros.parquet", content[:4] + bytes(len(content) - 200) + content[-196:])
    for name in ("text", "zeros"):
        with (
            pytest.raises(DatasetError, match=f"{name}.parquet is damaged"),
            store.reading_shard(f"{name}.parquet") as file,
        ):
            pq.read_table(file)
    with (
        pytest.raises(DatasetError, match=r"gone\.parquet is missing"),
        store.reading_shard("gone.parquet"),
    ):
        pass


def test_what_a_store_refuses_is_not_called_damaged(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.put("a.parquet", b"content")
    # gcsfs has no class and no number for a refusal; a wrong certificate is a ValueError, too.
    for error in (
        OSError("Forbidden: b/o\nno access"),
        ssl.SSLCertVerificationError("self-signed"),
    ):
        with (
            pytest.raises(DatasetError, match=r"a\.parquet cannot be read"),
            store.reading_shard("a.parquet"),
        ):
            raise error


def test_a_full_disk_is_not_the_fault_of_the_shard_that_is_copied(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.put("a.parquet", bytes(100_000))
    with (
        pytest.raises(OSError, match="No space left on device"),
        store.reading_shard("a.parquet") as source,
        Path("/dev/full").open("wb") as target,
    ):
        shutil.copyfileobj(source, target)
