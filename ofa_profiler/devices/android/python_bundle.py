"""A Python for phones: an arm64 interpreter with its own C library and loader.

It is built once on this machine, whatever its system, from Debian packages with the SHA-256 below. The result is one
file in the cache. `--phone-bundle` uses that file on a machine without internet.

    bin/python3         a script that starts the interpreter through its own loader
    bin/python3.11      the interpreter
    lib/                loader and shared objects, flat; lib/python3.11/ is the standard library
    share/doc/          the licences
    SHA256SUMS          of every other file; its own SHA-256 names the bundle

numpy and the runtime are not part of it. They are installed as wheels, as on any board (`remote/wheels.py`).
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import lzma
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ofa_profiler.base.cache_dir import default_cache_dir
from ofa_profiler.base.fetch import Content, FetchError, fetch
from ofa_profiler.base.files import write_bytes
from ofa_profiler.errors import DeviceError, InputFileError

#: Addresses of Debian mirrors, separated by spaces, each without `/pool/...`: `https://HOST/debian`.
MIRROR_VARIABLE = "OFA_DEBIAN_MIRROR"
_APT_SOURCES = Path("/etc/apt")
_SUMS = "SHA256SUMS"
_PYTHON = "python3.11"
LAUNCHER = "bin/python3"

#: Debian 12.15: SHA-256, size in bytes, path in the pool.
_PARTS = """\
01f4330719fd4f65580e16ea5a0527f372fca750e8f588d26deaf09f2d3b1cf4 2324660 g/glibc/libc6_2.36-9+deb12u14_arm64.deb
576926b283613db80168ddf76380a3bd877602778cf0d226caa7bfbfa71eacf3   34816 g/gcc-12/libgcc-s1_12.2.0-14+deb12u1_arm64.deb
26e138c677a985775331373828a6c286c551ff397cb735d00e2383cb273d1cb2  556608 g/gcc-12/libstdc++6_12.2.0-14+deb12u1_arm64.deb
52b8b8a145bbe1956bba82034f77022cbef0c3d0885c9e32d9817a7932fe1913   82744 z/zlib/zlib1g_1.2.13.dfsg-1_arm64.deb
8dc1976735acf825e3a922d82f171e20feec7394da2b8c616091983e38706275   86280 e/expat/libexpat1_2.5.0-1+deb12u2_arm64.deb
80b5c36177dc0e29d531c7eddbed3cc7355cb490e49f8cfa5959572d161f27b3   20492 libf/libffi/libffi8_3.4.4-1_arm64.deb
d3a96ece03326498b39ff093a76800dfcbcb1d4049d6ae6e9f6fa1aa7a590ad6   47452 b/bzip2/libbz2-1.0_1.0.8-5+b1_arm64.deb
647ce9d81e41c30071ce6ac0d3324579216a33aaa1d28971d6952315f6a95a75  199508 x/xz-utils/liblzma5_5.4.1-1+deb12u1_arm64.deb
3b2d19df0f3190108cf54228c4cfc822226c06d8f3615a5ab16a7dffb1f58aed   28532 u/util-linux/libuuid1_2.38.1-5+deb12u3_arm64.deb
eea0ad76ea5eb507127fea0c291622ea4ecdbb71c4b9a8ed9c76ae33fc1a0127   90044 libx/libxcrypt/libcrypt1_4.4.33-2_arm64.deb
a256e03cc3abd7243ac5c6ee91a9deb56478221ef0d3c2b0748551e13140c0bf 1823624 o/openssl/libssl3_3.0.20-1~deb12u2_arm64.deb
6a07dd571f1a15af2f855d64571766fe44b73a57cc3b5ca79502bc89156a5e12 1861304 p/python3.11/python3.11-minimal_3.11.2-6+deb12u8_arm64.deb
c48bac178c0fc43a2bf8ace784c762b5ee83e2b981894a991dc3ccfd3ec7cd4b  810796 p/python3.11/libpython3.11-minimal_3.11.2-6+deb12u8_arm64.deb
e79876de55c6c2dca10d044b2fa69ccd863950ea01714220c1982d16008105f9 1749796 p/python3.11/libpython3.11-stdlib_3.11.2-6+deb12u8_arm64.deb
"""  # noqa: E501
PARTS = tuple((name, int(size), sha256) for sha256, size, name in map(str.split, _PARTS.splitlines()))

#: Sets the folder of Python's own files, and a home and a temporary folder, which phones lack. Unsets what would load
#: Android's libraries into a program with another C library.
_LAUNCHER = f"""\
#!/system/bin/sh
here=${{0%/bin/*}}
unset LD_LIBRARY_PATH LD_PRELOAD PYTHONSTARTUP
export PYTHONHOME="$here" HOME="${{here%/*}}" TMPDIR="${{here%/*}}" USER="${{USER:-shell}}" LANG=C.UTF-8
exec "$here/lib/ld-linux-aarch64.so.1" --library-path "$here/lib" --argv0 "$0" "$here/bin/{_PYTHON}" "$@"
"""

#: Receives a line for the user.
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Bundle:
    """The file of a bundle, a compressed tar."""

    path: Path
    #: The SHA-256 of the list of its files.
    identity: str
    #: The bytes that it needs on the phone.
    size: int

    @property
    def name(self) -> str:
        """The name of its folder on a phone, which contains a hash of its content."""
        return f"python-{self.identity[:16]}"


def get_bundle(given: Path | None = None, *, cache_dir: Path | None = None, tell: Tell | None = None) -> Bundle:
    """Return the bundle in the file `given`, or else our own, from the cache or built now.

    Raises `InputFileError` for a file that is not a bundle, `DeviceError` if the parts cannot be downloaded.
    """
    if given is not None:
        return read_bundle(given)
    recipe = hashlib.sha256(repr((PARTS, _LAUNCHER, 1)).encode()).hexdigest()[:16]
    folder = (cache_dir or default_cache_dir()) / "phone"
    path = folder / f"phone-python-{recipe}.tar.gz"
    try:
        return read_bundle(path)
    except InputFileError:
        if tell is not None:
            tell(f"downloading a Python for phones into the cache ({sum(size for _, size, _ in PARTS) / 1e6:.0f} MB)")
        build_bundle(path, folder / "parts")
    return read_bundle(path)


def read_bundle(path: Path) -> Bundle:
    """Check the file of a bundle completely. Raises `InputFileError`."""
    try:
        found: dict[str, str] = {}
        size, sums = 0, b""
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                parts = PurePosixPath(member.name).parts
                data = archive.extractfile(member) if member.isfile() else None
                if data is None or not parts or parts[0] == "/" or ".." in parts:
                    raise InputFileError(path, f"is not a bundle for a phone: it contains {member.name!r:.80}")
                content = data.read()
                size += len(content)
                if member.name == _SUMS:
                    sums = content
                else:
                    found[member.name] = hashlib.sha256(content).hexdigest()
    except (OSError, EOFError, tarfile.TarError, lzma.LZMAError) as error:
        words = getattr(error, "strerror", None) or "it is not a complete compressed tar"
        raise InputFileError(path, f"cannot be read as a bundle for a phone: {words}") from error
    if sums != _sums(found) or LAUNCHER not in found:
        raise InputFileError(path, "is not a complete bundle for a phone: its files differ from its list")
    return Bundle(path, hashlib.sha256(sums).hexdigest(), size)


def build_bundle(path: Path, parts_dir: Path) -> None:
    """Download the parts that are not in `parts_dir` yet, and write the bundle to the file `path`.

    The same parts give the same bytes. Raises `DeviceError` if a part cannot be downloaded.
    """
    files: dict[str, bytes] = {}
    for name, size, sha256 in PARTS:
        files.update(_chosen(_part(name, size, sha256, parts_dir).read_bytes()))
    files[LAUNCHER] = _LAUNCHER.encode()
    files[_SUMS] = _sums({name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
    packed = io.BytesIO()
    # No time and no name in the header, and sorted names, give the same bytes every time.
    with (
        gzip.GzipFile("", "wb", 6, packed, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in sorted(files):
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            member.mode = 0o755 if name.startswith("bin/") or "/ld-linux-" in name else 0o644
            archive.addfile(member, io.BytesIO(files[name]))
    write_bytes(path, packed.getvalue())


def _sums(hashes: dict[str, str]) -> bytes:
    """Return a list of hashes in the format of `sha256sum`."""
    return "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes)).encode()


def mirrors() -> list[str]:
    """Return the addresses of Debian mirrors: those that the user named, then those of apt on this machine."""
    named = os.environ.get(MIRROR_VARIABLE, "").split()
    for path in sorted([*_APT_SOURCES.glob("sources.list"), *_APT_SOURCES.glob("sources.list.d/*")]):
        with contextlib.suppress(OSError):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            used = [line for line in lines if not line.lstrip().startswith("#")]
            named += re.findall(r"https?://\S*debian\S*", "\n".join(used))
    return list(dict.fromkeys(address.rstrip("/") for address in named))


def _part(name: str, size: int, sha256: str, folder: Path) -> Path:
    """Return a package in `folder`, downloaded if it is missing or damaged there."""
    path = folder / PurePosixPath(name).name
    addresses = [f"{mirror}/pool/main/{name}" for mirror in mirrors()]
    try:
        return fetch(addresses, path, Content(f"sha256:{sha256}", size), replace_damaged=True)
    except FetchError as error:
        why = str(error)[:300] or "no mirror is known"
        raise DeviceError(
            f"cannot download {path.name}, a part of the Python for phones ({why}); "
            f"set {MIRROR_VARIABLE} to a Debian mirror, or give a bundle made elsewhere with --phone-bundle"
        ) from None


_LIBRARIES = re.compile(r"(?:usr/)?lib/aarch64-linux-gnu/([^/]+\.so(?:\.[^/]*)?)")
_STANDARD_LIBRARY = re.compile(rf"usr/(lib/{_PYTHON}/.+)")


def _chosen(package: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the paths and the contents of the files of a Debian package that the bundle needs."""
    with tarfile.open(fileobj=io.BytesIO(_data_of(package)), mode="r:*") as archive:
        members = {member.name.removeprefix("./"): member for member in archive.getmembers()}

        def read(name: str) -> bytes:
            data = archive.extractfile(members[name])
            assert data is not None
            return data.read()

        # A library is loaded by the name of the link to it (its soname), or by its own name if there is no link.
        targets = {}
        for name, member in members.items():
            if member.issym() and _LIBRARIES.fullmatch(name) and "/" not in member.linkname:
                targets[str(PurePosixPath(name).parent / member.linkname)] = PurePosixPath(name).name
        for name, member in members.items():
            if not member.isfile():
                continue
            if library := _LIBRARIES.fullmatch(name):
                yield f"lib/{targets.get(name, library[1])}", read(name)
            elif module := _STANDARD_LIBRARY.fullmatch(name):
                yield module[1], read(name)
            elif name == f"usr/bin/{_PYTHON}":
                yield f"bin/{_PYTHON}", read(name)
            elif name.startswith("usr/share/doc/") and name.endswith("/copyright"):
                yield name.removeprefix("usr/"), read(name)


def _data_of(package: bytes) -> bytes:
    """Return the inner tar of a Debian package, which is an `ar` archive with a header of 60 bytes per member."""
    position = len(b"!<arch>\n")
    while position + 60 <= len(package):
        name = package[position : position + 16].decode("ascii").strip().rstrip("/")
        size = int(package[position + 48 : position + 58])
        if name.startswith("data.tar"):
            return package[position + 60 : position + 60 + size]
        position += 60 + size + size % 2
    raise DeviceError("a Debian package contains no files")  # impossible with the hashes above
