"""Logging in on a connection: nothing at all, keys, a password; and why it failed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from typing import Any

import paramiko
from paramiko.auth_handler import AuthHandler
from paramiko.common import cMSG_USERAUTH_REQUEST

from ofa_profiler.devices.ssh.target import Target

#: What newer releases of paramiko no longer have, by the release that has it.
_REMOVED = {
    "paramiko<5": {
        *("diffie-hellman-group1-sha1", "diffie-hellman-group14-sha1", "diffie-hellman-group-exchange-sha1", "ssh-rsa"),
    },
    "paramiko<4": {"ssh-dss"},
}
_MOST_NAMES, _MOST_LETTERS = 4, 90
_PASSWORDS = {"password", "keyboard-interactive"}


class Refused(paramiko.AuthenticationException):
    """The machine takes no key and no password. `remedy` is set if the reason is known."""

    def __init__(self, words: str, remedy: str = "") -> None:
        super().__init__(words)
        self.remedy = remedy


class Transport(paramiko.Transport):
    """A connection that keeps what the other side offers."""

    offers: dict[str, list[str]]

    def _parse_kex_init(self, m: paramiko.Message) -> None:
        self.offers = self._really_parse_kex_init(paramiko.Message(m.asbytes()))  # type: ignore[attr-defined]
        super()._parse_kex_init(m)  # type: ignore[misc]

    def explain(self, error: paramiko.SSHException) -> str:
        """Say why there is no way of talking to the other side, and what to do."""
        words = {"kex": "kex_algo_list", "host key": "server_key_algo_list", "ciphers": "server_encrypt_algo_list"}
        words["macs"] = "server_mac_algo_list"
        what = next((word for word in words if word in str(error)), "")
        offers = [name for name in getattr(self, "offers", {}).get(words.get(what, ""), []) if not _is_marker(name)]
        if not offers:
            return str(error)
        what = {"kex": "key exchange", "macs": "MACs"}.get(what, what)
        release = next((release for release, removed in _REMOVED.items() if removed & set(offers)), None)
        advice = (
            f"pip install '{release}', or update the ssh server there" if release else "update the ssh server there"
        )
        sha1 = "only SHA-1 " if release == "paramiko<5" else "only "
        return f"it offers {sha1}({what}: {_listed(offers)}), which paramiko {paramiko.__version__} lacks; {advice}"


def printable(text: str) -> str:
    """Return a text of the other side, or of the agent, without control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(name[:_MOST_LETTERS] for name in names[:_MOST_NAMES]) + more


def _is_marker(name: str) -> bool:
    return name.startswith(("ext-info-", "kex-strict-"))


class Login:
    """Logs in on a machine with these keys and this password: an `AuthStrategy` of paramiko."""

    def __init__(self, target: Target, keys: Sequence[paramiko.PKey], password: str | None) -> None:
        self._target, self._password = target, password
        self._keys = keys if target.use_keys else []

    def authenticate(self, transport: paramiko.Transport) -> Any:
        """Log in, or raise `Refused`."""
        user, allowed = self._target.user, ["publickey", *_PASSWORDS]
        refused: list[str] = []
        try:
            allowed = transport.auth_none(user)  # boards with an empty password may ask for nothing
        except paramiko.BadAuthenticationType as answer:
            allowed = answer.allowed_types
        except paramiko.AuthenticationException as error:
            _check_alive(transport, error)
        allowed = self._try_keys(transport, allowed, refused)
        if self._password is not None and self._target.use_password and _PASSWORDS & set(allowed):
            try:
                allowed = transport.auth_password(user, self._password)
            except paramiko.AuthenticationException as error:
                _check_alive(transport, error)
                refused.append("the password")
            else:
                refused = []
        if not allowed:
            return []
        for key in self._keys:
            if _is_rsa(key) and _takes_sha1(transport, user, key):
                words = f"it takes the {_name_of(key)} with SHA-1 signatures only"
                remedy = "pip install 'paramiko<5', or use a key of kind ed25519"
                raise Refused(f"{words}, which paramiko {paramiko.__version__} cannot make", remedy)
        words = f"it takes none of these: {_listed(refused)}" if refused else "there is no key to offer"
        if self._password is not None and not _PASSWORDS & set(allowed):
            words += f"; it asks for no password, only for {' or '.join(allowed)}"
        raise Refused(words)

    def _try_keys(self, transport: paramiko.Transport, allowed: list[str], refused: list[str]) -> list[str]:
        """Return what the server still asks for, and add the keys that it refused to `refused`."""
        for key in self._keys:
            for use_sha1 in (False, True) if _is_rsa(key) else (False,):
                if "publickey" not in allowed:
                    return allowed
                if not _can_sign(transport, key, use_sha1=use_sha1):
                    continue
                try:
                    allowed = transport.auth_publickey(self._target.user, key)
                    break
                except paramiko.BadAuthenticationType as answer:
                    allowed = answer.allowed_types
                except paramiko.SSHException as error:
                    if refused and not transport.is_active():
                        words = f"it closed the connection after {len(refused) + 1} keys (MaxAuthTries there)"
                        remedy = "in ~/.ssh/config, name the right one as IdentityFile, with IdentitiesOnly yes"
                        raise Refused(words, remedy) from None
                    _check_alive(transport, error)
            else:
                refused.append(_name_of(key))
        return allowed


def _check_alive(transport: paramiko.Transport, error: Exception) -> None:
    """Raise an error if the server did not answer, because then it is no refusal."""
    if not transport.is_active():
        raise EOFError
    if "timeout" in str(error).lower():
        raise error


def _is_rsa(key: paramiko.PKey) -> bool:
    return "ssh-rsa" in key.get_name()


def _name_of(key: paramiko.PKey) -> str:
    withheld = " with which the agent does not sign" if getattr(key, "is_withheld", False) else ""
    certificate = getattr(key, "public_blob", None)
    kind = certificate.key_type if certificate else key.get_name()
    return f"{getattr(key, 'comment', '') or 'key'} ({kind} {key.fingerprint[:19]}...){withheld}"


def _can_sign(transport: paramiko.Transport, key: paramiko.PKey, *, use_sha1: bool) -> bool:
    """Tell whether paramiko can make a signature for this key that the server takes; it would hang up if not.

    Older releases of paramiko have SHA-1, but use it only without an alternative.
    """
    if not _is_rsa(key):
        return True
    transport.disabled_algorithms = {"pubkeys": ["rsa-sha2-512", "rsa-sha2-256"] if use_sha1 else ["ssh-rsa"]}
    ours = [name for name in transport.preferred_pubkeys if "rsa" in name]
    offered = getattr(transport, "server_extensions", {}).get("server-sig-algs", b"")
    theirs = (offered.decode() if isinstance(offered, bytes) else offered).split(",")
    return bool(ours) and (theirs == [""] or any(name in theirs for name in ours))


def _takes_sha1(transport: paramiko.Transport, user: str, key: paramiko.PKey) -> bool:
    """Ask whether the server knows an RSA key that it has refused, if only with a signature that we cannot make."""
    if "ssh-rsa" in transport._key_info or not transport.is_active():  # type: ignore[attr-defined]
        return False
    question = _Sha1Question(transport, user, key)
    with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
        question.ask()
    return question.is_yes


class _Sha1Question(AuthHandler):
    """The question whether a key would do with a SHA-1 signature. It takes no signature to ask."""

    def __init__(self, transport: paramiko.Transport, user: str, key: paramiko.PKey) -> None:
        super().__init__(transport)
        self._user, self._key = user, key
        self.is_yes = False

    def ask(self) -> None:
        event = threading.Event()
        self.transport.auth_handler = self
        self.auth_publickey(self._user, self._key, event)
        self.wait_for_response(event)

    def _parse_service_accept(self, m: paramiko.Message) -> None:  # noqa: ARG002
        question = paramiko.Message()
        question.add_byte(cMSG_USERAUTH_REQUEST)
        for word in (self._user, "ssh-connection", "publickey"):
            question.add_string(word)
        question.add_boolean(False)
        question.add_string("ssh-rsa")
        question.add_string(self._key.asbytes())
        self.transport._send_message(question)  # type: ignore[attr-defined]

    def _parse_userauth_info_request(self, m: paramiko.Message) -> None:  # noqa: ARG002
        """Receive message 60, which here means yes."""
        self.is_yes = True
        if self.auth_event is not None:
            self.auth_event.set()
