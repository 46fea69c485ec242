"""Fetching a file from servers that drop, truncate, corrupt, stall and mislead."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from support.mirror import Mirror, git_digest, nobody, serving

from ofa_profiler.base.fetch import Content, FetchError, digest_of, fetch
from ofa_profiler.base.locks import locked
from ofa_profiler.base.progress import Progress
from ofa_profiler.errors import UsageError

DATA = b"\x80\x02" + np.random.default_rng(0).bytes(1_000_000)
OTHER = b"\x80\x02" + np.random.default_rng(1).bytes(1_000_000)
PINNED = Content(git_digest(DATA), starts=(b"\x80\x02",))
UNPINNED = Content(starts=(b"\x80\x02",))
TIMEOUT_S = 1.0


def get(path: Path, *mirrors: Mirror | str, content: Content = PINNED) -> bytes:
    addresses = [mirror if isinstance(mirror, str) else mirror.address for mirror in mirrors]
    fetch(addresses, path, content, timeout_s=TIMEOUT_S, waits_s=(0.01, 0.01))
    return path.read_bytes()


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "file"


both = pytest.mark.parametrize("content", [PINNED, UNPINNED], ids=["pinned", "unpinned"])


# --- a file arrives --------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("behaviour", ["whole", "slow", "norange"])
def test_a_file_arrives_whole(path: Path, behaviour: str, content: Content) -> None:
    seen: list[Progress] = []
    with serving(DATA, behaviour) as mirror:
        fetch([mirror.address], path, content, progress=seen.append)
    assert path.read_bytes() == DATA
    assert mirror.sent == len(DATA)
    assert left_in(path.parent) == {"file"}
    assert [now.done for now in seen] == sorted(now.done for now in seen)
    kib = len(DATA) >> 10
    assert seen[-1] == Progress("download (KiB)", kib, kib, words="from 127.0.0.1")


def test_what_is_there_is_not_fetched(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"mine")
    with serving(DATA) as mirror:
        assert get(path, mirror) == b"mine"
        assert mirror.requests == []


@pytest.mark.parametrize("behaviour", ["chunked", "endless"])
def test_a_file_of_untold_length_needs_a_hash(path: Path, behaviour: str) -> None:
    with serving(DATA, behaviour) as mirror:
        assert get(path, mirror) == DATA
        with pytest.raises(FetchError, match="does not report the size"):
            get(path.with_name("another"), mirror, content=UNPINNED)


def test_digests_are_those_of_git_and_sha256sum(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"what is up, doc?")  # the example of the book on git
    assert digest_of(path, "git") == "git:bd9dbf5aae1a3862dd1526723246b20206e5fc37"
    assert digest_of(path, "sha256") == f"sha256:{hashlib.sha256(b'what is up, doc?').hexdigest()}"


# --- it goes on where it was ------------------------------------------------------------------------------


@both
def test_a_dropped_connection_is_continued(path: Path, content: Content) -> None:
    """Not one byte is sent twice."""
    with serving(DATA, "drop:300000", "drop:1", "drop:400000", "whole") as mirror:
        assert get(path, mirror, content=content) == DATA
    assert mirror.sent == len(DATA)
    assert [r.get("range") for r in mirror.requests] == [None, "bytes=300000-", "bytes=300001-", "bytes=700001-"]
    assert all(r["if-range"] == '"one"' for r in mirror.requests[1:])
    assert all(r["accept-encoding"] == "identity" for r in mirror.requests)


@both
def test_a_stalled_connection_is_continued(path: Path, content: Content) -> None:
    with serving(DATA, "stall:300000", "whole") as mirror:
        assert get(path, mirror, content=content) == DATA
    assert mirror.sent == len(DATA)


@both
def test_a_later_call_goes_on(path: Path, content: Content) -> None:
    with serving(DATA, "drop:300000", "status:503") as mirror:
        with pytest.raises(FetchError, match="503"):
            get(path, mirror, content=content)
        assert left_in(path.parent) == {"file.part", "file.part.json"}
        mirror.behaviours = ["whole"]
        assert get(path, mirror, content=content) == DATA
        assert mirror.sent == len(DATA)
    assert left_in(path.parent) == {"file"}


@both
def test_ranges_that_are_ignored_start_the_file_anew(path: Path, content: Content) -> None:
    with serving(DATA, "drop:300000", "norange") as mirror:
        assert get(path, mirror, content=content) == DATA
    assert mirror.sent == 300_000 + len(DATA)


@both
def test_a_file_that_changed_meanwhile_is_not_put_together(path: Path, content: Content) -> None:
    """The server says that it changed; what was there is dropped."""
    with serving(OTHER, "drop:300000", "status:503", etag='"old"') as mirror:
        with pytest.raises(FetchError):
            get(path, mirror, content=content)
        mirror.data, mirror.etag, mirror.behaviours = DATA, '"new"', ["whole"]
        assert get(path, mirror, content=content) == DATA
        assert mirror.sent == 300_000 + len(DATA)


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_a_piece_that_cannot_be_told_from_another_is_not_continued(path: Path, etag: str | None) -> None:
    """Without a hash and without a strong validator, the rest might be the rest of another file."""
    with serving(OTHER, "drop:300000", "status:503", etag=etag) as mirror:
        with pytest.raises(FetchError):
            get(path, mirror, content=UNPINNED)
        mirror.data, mirror.behaviours = DATA, ["whole"]
        assert get(path, mirror, content=UNPINNED) == DATA


def test_without_a_hash_no_other_mirror_continues(path: Path) -> None:
    with serving(OTHER, "drop:300000", "status:404") as first, serving(DATA) as second:
        assert get(path, first, second, content=UNPINNED) == DATA
    assert second.sent == len(DATA)


def test_with_a_hash_another_mirror_gives_the_rest(path: Path) -> None:
    with serving(DATA, "drop:300000", "status:404") as first, serving(DATA, etag=None) as second:
        assert get(path, first, second) == DATA
    assert first.sent + second.sent == len(DATA)


def test_a_mixture_is_found_out_and_fetched_again(path: Path) -> None:
    """The first mirror has another file of the same size; the second must not suffer for it."""
    with serving(OTHER, "drop:300000", "status:404") as first, serving(DATA) as second:
        assert get(path, first, second) == DATA
    assert second.sent == len(DATA) - 300_000 + len(DATA)


def test_a_part_that_is_too_long_is_dropped(path: Path) -> None:
    path.parent.mkdir()
    path.with_name("file.part").write_bytes(DATA + b"more")
    with serving(DATA) as mirror:
        assert get(path, mirror) == DATA
    assert [r.get("range") for r in mirror.requests] == [f"bytes={len(DATA) + 4}-", None]


def test_a_part_that_is_all_there_is_dropped_or_used(path: Path) -> None:
    """Killed between the last byte and the rename: a server answers 416 to what would follow."""
    path.parent.mkdir()
    path.with_name("file.part").write_bytes(DATA)
    with serving(DATA) as mirror:
        assert get(path, mirror) == DATA


@both
@pytest.mark.parametrize("notes", [b"", b"{", b"[1]", b'{"address": 5}', b"\xff\xfe", b'{"validator": {}}'])
def test_damaged_notes_do_no_harm(path: Path, notes: bytes, content: Content) -> None:
    path.parent.mkdir()
    path.with_name("file.part").write_bytes(OTHER[:200_000])
    path.with_name("file.part.json").write_bytes(notes)
    with serving(DATA) as mirror:
        assert get(path, mirror, content=content) == DATA


@both
def test_another_part_than_asked_for_is_not_taken(path: Path, content: Content) -> None:
    with serving(DATA, "drop:300000", "elsewhere", "whole") as mirror:
        assert get(path, mirror, content=content) == DATA


# --- it does not arrive -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "words", "requests"),
    [
        ("status:404", "HTTP status 404", 1),
        ("status:403", "HTTP status 403", 1),
        ("status:500", "HTTP status 500", 3),
        ("status:429", "HTTP status 429", 3),
        ("status:416", "the rest", 3),
        ("status:204", "HTTP status 204", 1),
        ("drop:0", "connection was lost after 0 of", 3),
        ("stall:0", "timeout", 3),
        ("norange-drop:300000", "connection was lost after 300000 of", 4),
        ("loop", "infinite loop", 3),
        ("leads:ftp://127.0.0.1/file", "not encrypted", 1),
        ("leads:file:///etc/passwd", "not allowed", 1),
        ("page", "another kind of file", 1),
        ("encoded", "encoded", 1),
    ],
)
def test_what_goes_wrong_is_told_and_bounded(path: Path, behaviour: str, words: str, requests: int) -> None:
    with serving(DATA, behaviour) as mirror:
        with pytest.raises(FetchError, match=words) as refused:
            get(path, mirror)
        assert len(mirror.requests) == requests
    assert "127.0.0.1" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert not path.exists()
    with serving(DATA) as good:  # and nothing is left that would be in the way
        assert get(path, good) == DATA


def test_a_corrupt_file_is_deleted_and_the_next_mirror_asked(path: Path) -> None:
    corrupt = DATA[:500_000] + bytes([DATA[500_000] ^ 1]) + DATA[500_001:]
    with serving(corrupt) as bad:
        with pytest.raises(FetchError, match="hash differs"):
            get(path, bad)
        assert left_in(path.parent) == set()
        assert bad.sent == len(DATA)  # asked once: it would be the same again
        with serving(DATA) as good:
            assert get(path, bad, good) == DATA


def test_a_truncated_file_is_not_taken(path: Path) -> None:
    with serving(DATA[:-1000]) as bad, serving(DATA) as good:
        assert get(path, bad, good) == DATA
    with serving(DATA[:-1000]) as bad, pytest.raises(FetchError, match="has 999002 bytes, not 1000002"):
        get(path.with_name("sized"), bad, content=Content(size=len(DATA)))


def test_mirrors_are_asked_in_turn(path: Path) -> None:
    with serving(DATA, "status:404") as first, serving(DATA, "drop:0") as second, serving(DATA) as third:
        assert get(path, nobody(), first, second, third) == DATA
        assert [len(m.requests) for m in (first, second, third)] == [1, 1, 1]


def test_when_all_fail_each_is_told(path: Path) -> None:
    with serving(DATA, "status:404") as first, serving(DATA, "status:500") as second:
        with pytest.raises(FetchError, match=r"404.*; .*500.*; .*refused"):
            get(path, first, second, nobody())
        assert [len(m.requests) for m in (first, second)] == [1, 3]  # one of them is worth another try


def test_a_huge_file_is_refused_unread(path: Path) -> None:
    with serving(DATA, said_length=10 << 30) as mirror, pytest.raises(FetchError, match="larger than"):
        get(path, mirror)
    with serving(DATA, "chunked") as mirror, pytest.raises(FetchError, match="more than"):
        get(path, mirror, content=Content(git_digest(DATA), max_bytes=500_000))


def test_a_plain_address_may_lead_on_but_an_encrypted_one_not_down(path: Path) -> None:
    with serving(DATA) as there, serving(DATA, f"leads:{there.address}") as mirror:
        assert get(path, mirror) == DATA
    from urllib.request import Request

    from ofa_profiler.base.fetch import _Redirects, _Unavailable

    request = Request("https://example.org/file")
    with pytest.raises(_Unavailable, match="not encrypted"):
        _Redirects(plain=False).redirect_request(request, None, 302, "", {}, "http://example.org/file")
    with pytest.raises(FetchError, match="not an https address"):
        get(path.with_name("local"), "file:///etc/passwd")


def test_a_range_survives_a_redirect(path: Path) -> None:
    with serving(DATA, "drop:300000", "whole") as there, serving(DATA, f"leads:{there.address}") as mirror:
        assert get(path, mirror, content=UNPINNED) == DATA
    assert there.sent == len(DATA)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a folder")
    with serving(DATA) as mirror, pytest.raises(UsageError, match=r"cannot write .*cache"):
        get(tmp_path / "cache" / "file", mirror)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a full disk as a file")
def test_a_full_disk_is_not_the_mirrors_fault(path: Path) -> None:
    path.parent.mkdir()
    path.with_name("file.part").symlink_to("/dev/full")
    with serving(DATA) as mirror, pytest.raises(UsageError, match="No space left"):
        get(path, mirror)


# --- several processes, and their death --------------------------------------------------------------------

_PROCESS = """
import sys
from pathlib import Path
from ofa_profiler.base.fetch import Content, fetch
def show(now):
    if now.waiting:
        print("waiting", flush=True)
fetch([sys.argv[1]], Path(sys.argv[2]), Content(sys.argv[3] or None), progress=show)
"""


def start(mirror: Mirror, path: Path, content: Content = PINNED) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", _PROCESS, mirror.address, str(path), content.digest or ""]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def wait_until(happened: object, *, timeout_s: float = 300) -> None:
    assert callable(happened)
    end = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


@both
def test_killed_it_goes_on(path: Path, content: Content) -> None:
    part = path.with_name("file.part")
    with serving(DATA, "slow", "whole") as mirror:
        process = start(mirror, path, content)
        wait_until(lambda: part.exists() and part.stat().st_size > 200_000)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        have = part.stat().st_size
        assert 200_000 < have < len(DATA)
        assert not path.exists()
        sent = mirror.sent
        assert get(path, mirror, content=content) == DATA
        assert mirror.requests[-1]["range"] == f"bytes={have}-"
        wait_until(lambda: mirror.sent >= sent + len(DATA) - have)
    assert left_in(path.parent) == {"file"}


def test_several_processes_fetch_it_once(path: Path) -> None:
    path.parent.mkdir()
    with serving(DATA) as mirror:
        with locked(path.with_name(".file.lock")):
            processes = [start(mirror, path) for _ in range(3)]
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "waiting\n"
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert outputs == ["", "", ""], "each is told once"
    assert path.read_bytes() == DATA
    assert len(mirror.requests) == 1


def test_one_that_waits_takes_over_from_one_that_is_killed(path: Path) -> None:
    with serving(DATA, "stall:300000", "whole") as mirror:
        first = start(mirror, path)
        part = path.with_name("file.part")
        wait_until(lambda: part.exists() and part.stat().st_size > 200_000)
        waiting = threading.Event()
        taken = threading.Thread(
            target=lambda: fetch(
                [mirror.address], path, PINNED, progress=lambda now: now.waiting and waiting.set(), timeout_s=TIMEOUT_S
            )
        )
        taken.start()
        assert waiting.wait(30)
        os.kill(first.pid, signal.SIGKILL)
        first.communicate()
        taken.join(60)
        assert path.read_bytes() == DATA


def test_the_notes_say_where_the_part_is_from(path: Path) -> None:
    with serving(DATA, "drop:300000", "status:404") as mirror, pytest.raises(FetchError):
        get(path, mirror)
    notes = json.loads(path.with_name("file.part.json").read_text(encoding="utf-8"))
    assert notes == {"address": mirror.address, "validator": '"one"', "total": len(DATA)}
