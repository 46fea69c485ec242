"""The files that the OFA authors publish, by name: four supernets and the accuracy predictors of two of them.

Addresses are those in the authors' code (PyPI's `ofa`, earlier releases of it), and the Software Heritage
archive, which gives a file by its hash. Files are kept in the cache under the authors' own names.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ofa_profiler.base.cache_dir import default_cache_dir
from ofa_profiler.base.fetch import Content, FetchError, fetch, problem_of
from ofa_profiler.base.progress import Reporter
from ofa_profiler.errors import InputFileError, UsageError

#: Base addresses to use instead of the known ones, separated by spaces: `BASE/FILE`.
MIRROR_VARIABLE = "OFA_MIRROR"

_RELEASE = "https://raw.githubusercontent.com/han-cai/files/master/ofa"
_EARLIER = "https://hanlab.mit.edu/files/OnceForAll"
_ARCHIVE = "https://archive.softwareheritage.org/api/1/content"
#: torch's two formats: a zip archive, and before that pickles.
_STARTS = (b"PK\x03\x04", b"\x80\x02")


@dataclass(frozen=True)
class PublishedFile:
    """A file and its addresses, in the order in which they are tried."""

    file: str
    addresses: tuple[str, ...]
    content: Content


def _supernet(net_id: str, blob: str | None = None) -> PublishedFile:
    release, earlier = f"{_RELEASE}/ofa_nets/{net_id}", f"{_EARLIER}/ofa_nets/{net_id}"
    if blob is None:
        return PublishedFile(net_id, (release, earlier), Content(starts=_STARTS))
    archived = f"{_ARCHIVE}/sha1_git:{blob}/raw/"
    return PublishedFile(net_id, (release, archived, earlier), Content(f"git:{blob}", starts=_STARTS))


_RESNET50 = "ofa_resnet50_d0-1-2_e0.2-0.25-0.35_w0.65-0.8-1.0"


def _predictor(file: str, sha256: str) -> PublishedFile:
    addresses = f"{_RELEASE}/{file}", f"{_ARCHIVE}/sha256:{sha256}/raw/", f"{_EARLIER}/tutorial/{file}"
    return PublishedFile(file, addresses, Content(f"sha256:{sha256}", starts=_STARTS))


#: Kind of file -> name of the search space -> file.
PUBLISHED: dict[str, dict[str, PublishedFile]] = {
    "supernet": {
        "ofa-mbv3-w1.0": _supernet("ofa_mbv3_d234_e346_k357_w1.0", "55d835981d8acd1053657a951b18887a724ddcbf"),
        "ofa-mbv3-w1.2": _supernet("ofa_mbv3_d234_e346_k357_w1.2", "d75a3613bae216091f61fc4b7df77d49cc82ed32"),
        "ofa-proxyless-w1.3": _supernet("ofa_proxyless_d234_e346_k357_w1.3"),
        "ofa-resnet50": PublishedFile(
            _RESNET50,
            (
                # In the authors' repository this one is a pointer to a large file, kept at another address.
                f"https://media.githubusercontent.com/media/han-cai/files/master/ofa/ofa_nets/{_RESNET50}",
                "https://drive.usercontent.google.com/download?id=1xy6VIPEHXqbbqNu3xEZUxhp5FbTVs5cQ"
                "&export=download&confirm=t",
            ),
            # As the pointer says.
            Content(
                "sha256:3406a4c852f4573a58e9a01f35406baa4ad3787044ffadc6ea45571ad2b9123a", 192_773_235, starts=_STARTS
            ),
        ),
    },
    "predictor": {
        "ofa-mbv3-w1.2": _predictor(
            "acc_predictor.pth", "48685122a3540636b06699af66cd816456b25f29b69563e2fda9bed4018eeba0"
        ),
        "ofa-resnet50": _predictor(
            "ofa_resnet50_acc_predictor.pth", "68912b4b4be38feb504c5b773dc847af23a637984d5eaabf548de72cd0f79529"
        ),
    },
}


def find(kind: str, name: str, *, progress: Reporter | None = None) -> Path:
    """The file at the path `name`, or else the published `kind` (of `PUBLISHED`) of that name.

    A published file is read from the cache, or downloaded into it. Raises `UsageError` for an unknown name
    and for a failed download (with the place for a manual download), `InputFileError` for a file in the
    cache that differs from the published one.
    """
    try:
        if Path(name).exists():
            return Path(name)
    except (OSError, ValueError):  # not a path: too long, or with a zero byte
        pass
    published = PUBLISHED[kind].get(name)
    if published is None:
        function = "; a function of yours is package.module:function" if kind == "predictor" and ":" in name else ""
        raise UsageError(
            f"--{kind} {name:.200}: no such file, and no published {kind} of that name; "
            f"published are {', '.join(PUBLISHED[kind])}{function}"
        )
    path = cache_path(published)
    if path.exists():
        if problem := problem_of(path, published.content):
            raise InputFileError(path, f"is not the published {name}: {problem}; delete it to download it again")
        return path
    addresses = _addresses(published)
    try:
        return fetch(addresses, path, published.content, progress=progress)
    except FetchError as error:
        raise UsageError(
            f"cannot download the {kind} {name} ({error}); download it from {published.addresses[0]} yourself, "
            f"and put it at {path}"
        ) from None


def cache_path(published: PublishedFile) -> Path:
    """The place of a file in the cache. Raises `UsageError` for a user without a home folder."""
    return default_cache_dir() / "published" / published.file


def _addresses(published: PublishedFile) -> tuple[str, ...]:
    bases = os.environ.get(MIRROR_VARIABLE, "").split()
    for base in bases:
        if not base.startswith(("https://", "http://")):
            raise UsageError(f"{MIRROR_VARIABLE}: {base:.80} is not an address that starts with https://")
    return tuple(f"{base.rstrip('/')}/{published.file}" for base in bases) or published.addresses
