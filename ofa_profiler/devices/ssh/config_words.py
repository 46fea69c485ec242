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
#: Options that make no difference to where and how we log in. Of any other that is not used, the user is told.
_IRRELEVANT = """
    addkeystoagent batchmode bindinterface canonicalizepermittedcnames casignaturealgorithms channeltimeout
    checkhostip ciphers clearallforwardings compression compressionlevel connectionattempts controlmaster
    controlpath controlpersist dynamicforward enableescapecommandline enablesshkeysign escapechar
    exitonforwardfailure fingerprinthash forkafterauthentication forwardagent forwardx11 forwardx11timeout
    forwardx11trusted gatewayports gssapiauthentication gssapiclientidentity gssapidelegatecredentials
    gssapikexalgorithms gssapikeyexchange gssapirenewalforcesrekey gssapiserveridentity gssapitrustdns
    hashknownhosts hostbasedacceptedalgorithms hostbasedauthentication hostbasedkeytypes hostkeyalgorithms
    ignoreunknown ipqos kbdinteractivedevices kexalgorithms localcommand localforward loglevel logverbose macs
    nohostauthenticationforlocalhost numberofpasswordprompts obscurekeystroketiming permitlocalcommand
    permitremoteopen protocol pubkeyacceptedalgorithms pubkeyacceptedkeytypes rekeylimit remotecommand
    remoteforward requesttty requiredrsasize securitykeyprovider sendenv serveralivecountmax serveraliveinterval
    sessiontype setenv stdinnull streamlocalbindmask streamlocalbindunlink stricthostkeychecking syslogfacility
    tag tcpkeepalive tunnel tunneldevice updatehostkeys usekeychain useprivilegedport useroaming verifyhostkeydns
    versionaddendum visualhostkey warnweakcrypto xauthlocation
"""
IRRELEVANT = frozenset(_IRRELEVANT.split())
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
    """Return a value as `ssh -G` prints it. Raises `BadLine`."""
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
        return _port(word)
    return _seconds(word) if key == "connecttimeout" else word


def _port(word: str) -> str:
    try:
        port = int(word) if word.isdecimal() else socket.getservbyname(word, "tcp")
    except OSError:
        port = 0
    if not 0 < port < 1 << 16:
        raise BadLine(f"{word} is not a port")
    return str(port)


def _seconds(word: str) -> str:
    """Read a time like `90`, `1m30` or `none`."""
    word = word.lower()
    parts = re.findall(r"(\d+)([smhdw]?)", word)
    if word == "none":
        return word
    if "".join(number + unit for number, unit in parts) != word:
        raise BadLine(f"{word} is not a time")
    return str(sum(int(number) * _UNITS[unit] for number, unit in parts))


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
