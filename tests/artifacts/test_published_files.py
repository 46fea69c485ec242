"""`--supernet NAME` and `--predictor NAME`: what is published, where it is kept, and what is said without a network."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from support.mirror import Mirror, git_digest, nobody, serving

from ofa_profiler import LatencyTable, get_space
from ofa_profiler.base.cache_dir import default_cache_dir
from ofa_profiler.base.fetch import Content, fetch
from ofa_profiler.errors import InputFileError, UsageError
from ofa_profiler.tables.table import Row
from ofa_search import AccuracyPredictor
from ofa_search.artifacts import ofa_files as published_files
from ofa_search.artifacts.ofa_files import PUBLISHED, PublishedFile, cache_path, find

DATA = b"\x80\x02" + np.random.default_rng(0).bytes(300_000)
ALL = [(kind, name, file) for kind, files in PUBLISHED.items() for name, file in files.items()]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of our own, and no way out: what is not mirrored here is not to be had."""
    monkeypatch.setenv("OFA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("OFA_MIRROR", nobody().removesuffix("/file"))
    monkeypatch.setattr(published_files, "fetch", partial(fetch, waits_s=(0.01, 0.01)))
    return tmp_path / "cache" / "published"


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> PublishedFile:
    """A published supernet whose content is at hand."""
    file = PublishedFile("net", ("https://example.org/net",), Content(git_digest(DATA), starts=(b"\x80\x02",)))
    monkeypatch.setitem(PUBLISHED["supernet"], "ofa-mbv3-w1.2", file)
    return file


def use(monkeypatch: pytest.MonkeyPatch, *mirrors: Mirror) -> None:
    monkeypatch.setenv("OFA_MIRROR", " ".join(mirror.base for mirror in mirrors))


# --- what is published ------------------------------------------------------------------------------------


def test_all_published_spaces_have_a_supernet() -> None:
    assert set(PUBLISHED["supernet"]) == {"ofa-mbv3-w1.0", "ofa-mbv3-w1.2", "ofa-proxyless-w1.3", "ofa-resnet50"}
    assert set(PUBLISHED["predictor"]) == {"ofa-mbv3-w1.2", "ofa-resnet50"}


@pytest.mark.parametrize(("kind", "name", "file"), ALL)
def test_every_file_has_encrypted_addresses_on_several_servers(kind: str, name: str, file: PublishedFile) -> None:
    assert len({urlsplit(address).hostname for address in file.addresses}) == len(file.addresses) >= 2
    assert all(urlsplit(address).scheme == "https" for address in file.addresses)
    assert file.content.starts
    assert re.fullmatch(r"[\w.-]+", file.file)
    get_space(name)


def test_the_mobilenets_are_known_by_their_names_in_git() -> None:
    digests = {name: file.content.digest for name, file in PUBLISHED["supernet"].items()}
    assert digests["ofa-mbv3-w1.0"] == "git:55d835981d8acd1053657a951b18887a724ddcbf"
    assert digests["ofa-mbv3-w1.2"] == "git:d75a3613bae216091f61fc4b7df77d49cc82ed32"


def test_the_predictor_is_the_published_one(shared_dir: Path) -> None:
    data = (shared_dir / "data" / "ofa" / "acc_predictor.pth").read_bytes()
    assert PUBLISHED["predictor"]["ofa-mbv3-w1.2"].content.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"


# --- a name or a path ---------------------------------------------------------------------------------------


def test_a_name_is_fetched_once(cache: Path, known: PublishedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(DATA) as mirror:
        use(monkeypatch, mirror)
        for _ in range(2):
            path = find("supernet", "ofa-mbv3-w1.2")
            assert path == cache / "net"
            assert path.read_bytes() == DATA
    assert [request["path"] for request in mirror.requests] == ["/net"]


def test_named_mirrors_are_asked_in_turn(known: PublishedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(b"\x80\x02another") as first, serving(DATA) as second:
        use(monkeypatch, first, second)
        assert find("supernet", "ofa-mbv3-w1.2").read_bytes() == DATA
    assert len(first.requests) == len(second.requests) == 1


def test_a_path_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ofa-mbv3-w1.2").write_text("my own")
    assert find("supernet", "ofa-mbv3-w1.2") == Path("ofa-mbv3-w1.2")
    assert find("predictor", str(tmp_path / "ofa-mbv3-w1.2")).read_text() == "my own"


@pytest.mark.parametrize("name", ["ofa-mbv3-w9", "no/such.pth", "a" * 5000, "zero\0byte", "ofa-mbv3-w1.0"])
def test_what_is_neither_is_refused_with_the_names(name: str) -> None:
    with pytest.raises(UsageError, match=r"--predictor .*no such file.*published are ofa-mbv3-w1\.2, ofa-resnet50$"):
        find("predictor", name)


def test_a_file_put_there_by_hand_is_used_if_it_is_the_one(cache: Path, known: PublishedFile) -> None:
    cache.mkdir(parents=True)
    (cache / "net").write_bytes(DATA)
    assert find("supernet", "ofa-mbv3-w1.2") == cache / "net"
    (cache / "net").write_bytes(DATA[:-1])
    with pytest.raises(InputFileError, match=r"is not the published ofa-mbv3-w1\.2: .*hash differs.*delete it"):
        find("supernet", "ofa-mbv3-w1.2")
    assert (cache / "net").exists()  # it is the user's


@pytest.mark.parametrize("mirror", ["ftp://example.org", "/srv/mirror", "file:///srv"])
def test_a_mirror_that_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch, mirror: str) -> None:
    monkeypatch.setenv("OFA_MIRROR", mirror)
    with pytest.raises(UsageError, match="OFA_MIRROR"):
        find("supernet", "ofa-mbv3-w1.2")


@pytest.mark.parametrize(("kind", "name", "file"), ALL)
def test_without_a_network_one_line_says_what_to_do(cache: Path, kind: str, name: str, file: PublishedFile) -> None:
    with pytest.raises(UsageError) as refused:
        find(kind, name)
    line = str(refused.value)
    assert len(line.splitlines()) == 1
    assert f"cannot download the {kind} {name}" in line
    assert "refused" in line
    assert file.addresses[0] in line
    assert line.endswith(f"put it at {cache / file.file}")


def test_the_cache_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = PUBLISHED["predictor"]["ofa-mbv3-w1.2"]
    assert cache_path(file) == tmp_path / "cache" / "published" / "acc_predictor.pth"
    monkeypatch.delenv("OFA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_dir() == tmp_path / "xdg" / "ofa-profiler"


# --- on the command line ------------------------------------------------------------------------------------


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A table whose times are the ops' MACs: nothing is measured here."""
    space = get_space("ofa-mbv3-w1.2").with_resolutions([160])
    rows = tuple(
        Row.from_op(op, batch=1, precision="fp32", samples_ms=[op.macs / 1e7 + 0.01] * 3) for op in space.unique_ops()
    )
    path = tmp_path / "board.csv"
    LatencyTable(name="board", rows=rows, metadata={"spaces": [space.name]}, path=path).save(path)
    return path


def search(board: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "ofa_search.cli.search",
        "--lut",
        str(board),
        "--budget",
        "1s",
        "--no-export",
        "--json",
    ]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=300, env=os.environ)


def test_ofa_search_fetches_the_predictor(board: Path, shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (shared_dir / "data" / "ofa" / "acc_predictor.pth").read_bytes()
    with serving(data, "drop:500000", "whole") as mirror:
        use(monkeypatch, mirror)
        done = search(board, "--predictor", "ofa-mbv3-w1.2", "--engine", "random")
    assert done.returncode == 0, done.stderr
    assert '"predicted_accuracy": 0.' in done.stdout
    assert "downloading the predictor ofa-mbv3-w1.2 from 127.0.0.1" in done.stderr
    assert mirror.sent == len(data)


@pytest.mark.slow
@pytest.mark.parametrize(("option", "name"), [("--predictor", "ofa-mbv3-w1.2"), ("--supernet", "ofa-mbv3-w1.2")])
def test_ofa_search_without_a_network(board: Path, cache: Path, option: str, name: str) -> None:
    predictor = () if option == "--predictor" else ("--predictor", "macs")
    done = search(board, option, name, *predictor)
    assert done.returncode == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("ofa-search: cannot download the ")
    assert str(cache) in line


@pytest.mark.parametrize("option", ["--predictor", "--supernet"])
def test_ofa_search_lists_the_names(board: Path, option: str) -> None:
    done = search(board, option, "no-such", *(() if option == "--predictor" else ("--predictor", "macs")))
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "no such file" in line
    assert "ofa-mbv3-w1.2" in line


def test_the_fetched_predictor_predicts(shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shared_dir / "data" / "ofa" / "acc_predictor.pth"
    with serving(path.read_bytes()) as mirror:
        use(monkeypatch, mirror)
        predictor = AccuracyPredictor.load(find("predictor", "ofa-mbv3-w1.2"))
    space = get_space("ofa-mbv3-w1.2")
    assert predictor.predict([space.largest]) == AccuracyPredictor.load(path).predict([space.largest])
