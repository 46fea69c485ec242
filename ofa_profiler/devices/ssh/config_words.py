"""The words of OpenSSH's configuration: quotes, comments, patterns, and what values mean."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Sequence

from ofa_profiler.devices.ssh.known_hosts import matches_pattern

SWITCHES = {
    *("identitiesonly", "passwordauthentication", "kbdinteractiveauthentication", "pubkeyauthentication"),
    *("canonicalizefallbacklocal", "proxyusefdpass"),
}
_CHOICES = {
    "canonicalizehostname": {"yes", "true", "no", "false", "always"},
    "addressfamily": {"inet", "inet6", "any"},
}
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class BadLine(ValueError):
    """A line that OpenSSH would refuse."""


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether a pattern matches and no negated one does."""
    found = False
    for pattern in patterns:
        negated = pattern.startswith("!")
        if matches_pattern(pattern[1:] if negated else pattern, name):
            if negated:
                return False
            found = True
    return found


def is_address(host: str) -> bool:
    """Tell whether this is an address and no name."""
    try:
        socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except OSError:
        return False
    return True


def checked(key: str, word: str) -> str:
    """Return a value as `ssh -G` prints it. Raises `ValueError`."""
    if key in SWITCHES:
        if word.lower() not in ("yes", "no", "true", "false"):
            raise BadLine(f"{key} must be yes or no, not {word!r}")
        return "yes" if word.lower() in ("yes", "true") else "no"
    if key in _CHOICES:
        if word.lower() not in _CHOICES[key]:
            raise BadLine(f"{key} cannot be {word!r}")
        return word.lower()
    if key == "canonicalizemaxdots" and not word.isdecimal():
        raise BadLine(f"{word} is not a number")
    if key == "port":
        try:
            port = int(word) if word.isdecimal() else socket.getservbyname(word, "tcp")
        except OSError:
            port = 0
        if not 0 < port < 1 << 16:
            raise BadLine(f"{word} is not a port")
        return str(port)
    if key == "connecttimeout" and word.lower() != "none":
        parts = re.findall(r"(\d+)([smhdw]?)", word.lower())
        if "".join(number + unit for number, unit in parts) != word.lower():
            raise BadLine(f"{word} is not a time")
        return str(sum(int(number) * _UNITS[unit] for number, unit in parts))
    return word


def split_words(text: str) -> Sequence[str]:
    """Split at spaces outside of quotes. A word that begins with `#` begins a comment. Raises `ValueError`."""
    words: list[str] = []
    place = 0
    while place < len(text):
        if text[place] in " \t":
            place += 1
            continue
        if text[place] == "#":
            break
        word, quote = "", ""
        while place < len(text):
            letter, following = text[place], text[place + 1 : place + 2]
            if letter == "\\" and following and following in ("'\"\\" if quote else "'\"\\ "):
                word += following
                place += 1
            elif not quote and letter in " \t":
                break
            elif not quote and letter in "\"'":
                quote = letter
            elif letter == quote:
                quote = ""
            else:
                word += letter
            place += 1
        if quote:
            raise BadLine("a quote is not closed")
        words.append(word)
    return words
