"""Files are written whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_profiler.base.files import replacing, write_bytes, write_text
from ofa_profiler.errors import UsageError


@given(data=st.binary(max_size=2000), text=st.text())
def test_what_is_written_is_there(tmp_path_factory, data, text):
    folder = tmp_path_factory.mktemp("files")
    write_bytes(folder / "new folder" / "data", data)
    assert (folder / "new folder" / "data").read_bytes() == data
    encodable = text.encode("utf-8", "ignore").decode()
    write_text(folder / "text", encodable)
    assert (folder / "text").read_bytes() == encodable.encode()
    assert sorted(p.name for p in folder.iterdir()) == ["new folder", "text"]


def test_failure_while_writing_keeps_the_old_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half of the n")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_parent_that_is_a_file_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"^cannot write .*model\.onnx: \w[^\n]*$"):
        write_bytes(tmp_path / "file" / "model.onnx", b"x")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_files_get_the_permissions_that_the_umask_allows(tmp_path):
    umask = os.umask(0o027)
    try:
        write_text(tmp_path / "table.csv", "x")
    finally:
        os.umask(umask)
    assert (tmp_path / "table.csv").stat().st_mode & 0o777 == 0o640


def test_disk_that_takes_no_more_keeps_the_old_file(tmp_path):
    pytest.importorskip("resource", reason="file size limits are a POSIX matter")
    path = tmp_path / "table.csv"
    path.write_text("old")
    script = (
        "import resource, sys; from ofa_profiler.base.files import write_bytes\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_bytes(sys.argv[1], bytes(5000))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].startswith(f"ofa_profiler.errors.UsageError: cannot write {path}: ")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
