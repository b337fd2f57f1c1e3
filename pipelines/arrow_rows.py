"""The rows of shards as a ``pyarrow.dataset.Dataset``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs

from melmill.transforms.store.folders import Store


def arrow_dataset(
    store: Store, files: Mapping[str, Sequence[str]], schema: pa.Schema, *, verify: bool
) -> pyarrow.dataset.Dataset:
    """Return the rows of Parquet files.

    Parameters
    ----------
    store
        Store of the dataset.
    files
        Names of the files, by split.
    schema
        Columns of the rows, with the split.
    verify
        Whether to verify the checksums of pages.
    """
    filesystem, root = store.filesystem()
    if store.is_local:
        arrow_filesystem = pyarrow.fs.LocalFileSystem()
    else:
        arrow_filesystem = pyarrow.fs.PyFileSystem(_ExactRanges(filesystem))
    scan = pyarrow.dataset.ParquetFragmentScanOptions(page_checksum_verification=verify)
    file_format = pyarrow.dataset.ParquetFileFormat(default_fragment_scan_options=scan)
    fragments = [
        file_format.make_fragment(
            f"{root}/{name}", arrow_filesystem, pyarrow.dataset.field("split") == split
        )
        for split, names in files.items()
        for name in names
    ]
    return pyarrow.dataset.FileSystemDataset(fragments, schema, file_format, arrow_filesystem)


class _ExactRanges(pyarrow.fs.FSSpecHandler):
    """Opens files of a store so that they read what Arrow asks for, and nothing ahead.

    Arrow plans the ranges of a row group itself. What a client reads ahead is wasted, and still
    pending when the interpreter ends.
    """

    def open_input_file(self, path: str) -> pa.PythonFile:
        """Open a file to be read at any position."""
        return pa.PythonFile(self.fs.open(path, mode="rb", cache_type="none"), mode="r")
