"""The Python for phones: put together, and checked."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.phones import packed
from support.sshd import free_port

from ofa_profiler.base.cache_dir import default_cache_dir
from ofa_profiler.devices.android import python_bundle as phone_bundle
from ofa_profiler.devices.android.python_bundle import PARTS, Bundle, build_bundle, get_bundle, read_bundle
from ofa_profiler.errors import DeviceError, InputFileError

# --- the file -----------------------------------------------------------------------------------------


def test_the_same_parts_give_the_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    build_bundle(tmp_path / "again.tar.gz", default_cache_dir() / "phone" / "parts")
    again = read_bundle(tmp_path / "again.tar.gz")
    assert again.identity == bundle.identity
    assert again.path.read_bytes() == bundle.path.read_bytes()


def test_a_bundle_holds_regular_files_only_and_what_a_python_needs(bundle: Bundle) -> None:
    with tarfile.open(bundle.path) as archive:
        members = {member.name: member for member in archive}
    assert all(member.isfile() for member in members.values())
    for name in ("bin/python3", "bin/python3.11", "lib/ld-linux-aarch64.so.1", "lib/libstdc++.so.6", "lib/libz.so.1"):
        assert name in members
    assert "lib/python3.11/tarfile.py" in members
    assert any("_ctypes" in name for name in members)
    assert "share/doc/libc6/copyright" in members


def test_a_given_bundle_is_read(tmp_path: Path) -> None:
    path = packed(tmp_path, {"bin/python3": b"#!/system/bin/sh\n", "lib/x": b"xyz"})
    found = get_bundle(path)
    assert found.size == len(b"#!/system/bin/sh\n") + 3 + 2 * 66 + len("bin/python3\nlib/x\n")
    assert found.name.startswith("python-")


@pytest.mark.parametrize(
    ("files", "sums"),
    [
        ({"lib/x": b"xyz"}, None),
        ({"bin/python3": b"x"}, b""),
        ({"bin/python3": b"x"}, b"0" * 64 + b"  bin/python3\n"),
        ({"bin/python3": b"x", "../evil": b"x"}, None),
        ({"bin/python3": b"x", "/evil": b"x"}, None),
    ],
    ids=["no-launcher", "no-list", "wrong-hash", "parent", "absolute"],
)
def test_what_is_no_bundle_is_refused(tmp_path: Path, files: dict[str, bytes], sums: bytes | None) -> None:
    with pytest.raises(InputFileError, match="bundle"):
        get_bundle(packed(tmp_path, files, sums))


def test_links_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo("bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, "/system/bin/sh"
        archive.addfile(link)
    with pytest.raises(InputFileError, match="not a bundle"):
        get_bundle(path)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:5000], lambda data: b"x" * 500])
def test_a_file_that_is_cut_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = packed(tmp_path, {"bin/python3": os.urandom(40000)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputFileError, match="bundle"):
        get_bundle(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="No such file"):
        get_bundle(tmp_path / "none")


# --- fetching its parts -------------------------------------------------------------------------------


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "pool"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", folder
        server.shutdown()


def test_a_part_comes_from_the_first_mirror_that_has_it(
    mirror: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = mirror
    for place, content in ("wrong", b"<html>log in to this network</html>"), ("debian", b"content"):
        (folder / place / "pool" / "main").mkdir(parents=True)
        (folder / place / "pool" / "main" / "a.deb").write_bytes(content)
    nobody = f"http://127.0.0.1:{free_port()}/debian"
    monkeypatch.setattr(phone_bundle, "_APT_SOURCES", tmp_path / "apt")
    monkeypatch.setenv(phone_bundle.MIRROR_VARIABLE, f"{nobody} {url}wrong/ {url}debian")
    sha256 = hashlib.sha256(b"content").hexdigest()
    parts = tmp_path / "parts"
    assert phone_bundle._part("a.deb", 7, sha256, parts).read_bytes() == b"content"
    monkeypatch.delenv(phone_bundle.MIRROR_VARIABLE)  # the second time from the cache
    assert phone_bundle._part("a.deb", 7, sha256, parts).read_bytes() == b"content"
    (parts / "a.deb").write_bytes(b"damaged")
    (tmp_path / "apt" / "sources.list.d").mkdir(parents=True)
    (tmp_path / "apt" / "sources.list.d" / "own.sources").write_text(
        f"Types: deb\n# {nobody}\nURIs: {url}debian/\nSuites: bookworm\n", encoding="utf-8"
    )
    assert phone_bundle._part("a.deb", 7, sha256, parts).read_bytes() == b"content"


@pytest.mark.slow
def test_without_internet_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phone_bundle, "_APT_SOURCES", tmp_path / "apt")
    for mirrors in "", f"http://127.0.0.1:{free_port()}/debian":
        monkeypatch.setenv(phone_bundle.MIRROR_VARIABLE, mirrors)
        with pytest.raises(DeviceError, match=rf"{phone_bundle.MIRROR_VARIABLE}.* --phone-bundle") as caught:
            get_bundle(cache_dir=tmp_path)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.gz"))


def test_every_part_is_pinned() -> None:
    assert len({sha256 for _, _, sha256 in PARTS}) == len(PARTS) == 14
    assert all(len(sha256) == 64 and name.endswith("_arm64.deb") for name, _, sha256 in PARTS)
