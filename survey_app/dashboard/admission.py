"""Who may see the dashboard: decisions from the secrets, the request and the clock alone. access.py asks and draws.

The secrets name identity providers and e-mail addresses, or a passphrase; without either only this machine may.
Whatever is in doubt is refused.
"""

import hashlib
import hmac
import ipaddress
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from secrets import token_urlsafe
from typing import Any

from itsdangerous import BadSignature, TimestampSigner

SHORTEST_PASSPHRASE = 12  # characters
SHORTEST_COOKIE_SECRET = 32  # characters
TOKEN_LIFETIME_S = 12 * 60 * 60

FREE_ATTEMPTS = 3
LONGEST_WAIT_S = 30.0
FORGET_AFTER_S = 15 * 60.0
MOST_ADDRESSES = 1000

# What browsers themselves send when they open a websocket, besides Sec-…. A proxy's visitors come from the proxy's
# address, often this machine's, and show by a header that it adds: so any other header is a reason to refuse.
BROWSERS_SEND = frozenset(
    {"accept", "accept-encoding", "accept-language", "cache-control", "connection", "cookie", "dnt", "host", "origin"}
    | {"pragma", "priority", "upgrade", "user-agent"}
)


class SecretsError(Exception):
    """The secrets cannot be used: one sentence for whoever runs the server. It quotes nothing secret."""


@dataclass(frozen=True)
class Rules:
    """providers: as st.login() takes them, "default" being [auth] itself. emails: addresses, or "*@domain". With
    neither providers nor passphrase the dashboard answers to this machine alone."""

    providers: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    passphrase: str | None = None


def read_rules(secrets: Mapping[str, Any]) -> Rules:
    """What the secrets say about the dashboard. Raises SecretsError."""
    dashboard = secrets.get("dashboard", {})
    if not isinstance(dashboard, Mapping):
        raise SecretsError("In the secrets, dashboard has to be a table: [dashboard].")
    unknown = sorted(dashboard.keys() - {"emails", "passphrase"})
    if unknown:
        raise SecretsError(f"In the secrets' [dashboard] only emails and passphrase are known, not {unknown[0]!r}.")
    if "auth" in secrets:
        auth = secrets["auth"]
        if not isinstance(auth, Mapping):
            raise SecretsError("In the secrets, auth has to be a table: [auth].")
        # Streamlit takes any. Who guesses it can sign in as anybody.
        if len(str(auth.get("cookie_secret", ""))) < SHORTEST_COOKIE_SECRET:
            raise SecretsError(
                f"In the secrets, [auth] cookie_secret has to be a random text of at least {SHORTEST_COOKIE_SECRET} "
                "characters."
            )
        return Rules(providers=_providers(auth), emails=_emails(dashboard.get("emails", [])))
    if "emails" in dashboard:
        raise SecretsError(
            "The secrets name e-mail addresses but no identity provider: add [auth], or use a passphrase instead."
        )
    passphrase = dashboard.get("passphrase")
    if passphrase is None:
        return Rules()
    if not isinstance(passphrase, str) or len(passphrase.strip()) < SHORTEST_PASSPHRASE:
        raise SecretsError(
            f"The dashboard's passphrase in the secrets has to be a text of at least {SHORTEST_PASSPHRASE} characters."
        )
    return Rules(passphrase=passphrase)


def _providers(auth: Mapping[str, Any]) -> tuple[str, ...]:
    """Named ones are tables in [auth]; an unnamed one has its settings in [auth] itself."""
    named = tuple(name for name, value in auth.items() if isinstance(value, Mapping) and name != "client_kwargs")
    return (("default",) if "client_id" in auth or not named else ()) + tuple(n for n in named if n != "default")


def _emails(listed: object) -> tuple[str, ...]:
    if not isinstance(listed, list) or not listed:
        raise SecretsError(
            "Nobody may see the dashboard yet: list who may in the secrets' [dashboard], for instance "
            '`emails = ["ada@lab.example", "*@lab.example"]`.'
        )
    for number, pattern in enumerate(listed, 1):
        if (
            not isinstance(pattern, str)
            or not re.fullmatch(r"(\*|[^@*\s]+)@[^@*\s]+", pattern)
            or not pattern.isascii()
        ):
            raise SecretsError(
                "In the secrets, each of [dashboard] emails has to be an address such as `ada@lab.example`, or "
                f"`*@lab.example` for all of a domain; number {number} is neither."
            )
    return tuple(listed)


# --- An identity provider's word ---


def email_allowed(email: object, verified: object, patterns: Iterable[str]) -> bool:
    """Whether a signed-in person may see the dashboard.

    email, verified: the provider's claims `email` and `email_verified`. Not every provider makes the second; where it
    does, it has to be true. Some providers say "true" as a text.
    """
    if verified not in (None, True, "true") or not isinstance(email, str):
        return False
    # Other scripts have letters that are lower-cased to ASCII ones ("K", the Kelvin sign, to "k").
    if not email.isascii() or not re.fullmatch(r"[^@\s]+@[^@\s]+", email):
        return False
    domain = email.partition("@")[2].lower()
    return any(pattern.lower() in (email.lower(), f"*@{domain}") for pattern in patterns)


# --- This machine ---


def doubt_of_this_machine(address: str | None, headers: Iterable[tuple[str, str]]) -> str | None:
    """Why a request may come from elsewhere, as a clause; None if it comes from this machine.

    address: the client's, None standing for 127.0.0.1 and ::1, as Streamlit has it. headers: of the websocket's
    handshake, by names of any case, repeated ones repeated.

    Uvicorn, under Streamlit, takes a client's address from X-Forwarded-For where the connection comes from 127.0.0.1 or
    ::1 (or what FORWARDED_ALLOW_IPS says), but leaves the header there: it is refused for that. What cannot be told
    from a browser on this machine is a proxy that adds no header, rewrites Host, and lets a made-up Origin pass.
    """
    given = [(name.lower(), value) for name, value in headers]
    for name, _ in given:
        if name not in BROWSERS_SEND and not name.startswith("sec-"):
            return f"the request has a header that a proxy may have added, {name[:40]}"
    if address is not None and not _is_loopback(address):
        return f"the request comes from {address[:60]}"
    hosts = [value for name, value in given if name == "host"]
    if len(hosts) != 1 or not _names_this_machine(hosts[0]):
        return "the address in the browser is not localhost or 127.0.0.1"
    for origin in (value for name, value in given if name == "origin"):
        scheme, separator, host = origin.partition("://")
        if scheme not in ("http", "https") or not separator or not _names_this_machine(host):
            return "the request comes from another site's page"
    return None


def _names_this_machine(host: str) -> bool:
    """host: as in a Host header. By any other name a site elsewhere can have this machine's address (DNS rebinding)."""
    name = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[0-9A-Za-z.-]+)(:\d{1,5})?", host, re.ASCII)
    return name is not None and (name[1].lower() == "localhost" or _is_loopback(name[1].strip("[]")))


def _is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    # A server on :: sees 127.0.0.1 as ::ffff:127.0.0.1.
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


# --- The passphrase ---


def new_token(passphrase: str) -> str:
    """A token with which who knew the passphrase may come again, for TOKEN_LIFETIME_S."""
    return _signer(passphrase).sign(token_urlsafe(12)).decode()


def token_id(passphrase: str, token: str) -> str | None:
    """What is one token's alone, None if it is not valid. Tokens themselves can be written in several ways: base64."""
    try:
        return _signer(passphrase).unsign(token, max_age=TOKEN_LIFETIME_S).decode()
    except BadSignature:
        return None


def _signer(passphrase: str) -> TimestampSigner:
    return TimestampSigner(_key(passphrase), salt="huejury dashboard", digest_method=hashlib.sha256)


@lru_cache(maxsize=1)
def _key(passphrase: str) -> bytes:
    """Slow to compute, so that a token that falls into wrong hands is no quick way to guess the passphrase."""
    return hashlib.scrypt(passphrase.encode(), salt=b"huejury dashboard", n=2**14, r=8, p=1)


@dataclass(frozen=True)
class Attempt:
    """checked: not, if too soon. wait_s: seconds for which the same address is refused from now on, right or not."""

    right: bool
    checked: bool
    wait_s: float = 0.0


class Attempts:
    """Checks passphrases, more slowly after wrong ones. For all sessions of a server; safe between threads.

    After FREE_ATTEMPTS wrong ones from an address the next is refused, unchecked, for 1, 2, 4, ... and at most
    LONGEST_WAIT_S seconds. Counted by address, so that nobody can keep everybody else waiting; when MOST_ADDRESSES are
    counted, all others are counted as one, so that guessing from very many is slow too.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: dict[str, tuple[int, float]] = {}  # how many, and until when to refuse

    def attempt(self, address: str | None, given: str, passphrase: str) -> Attempt:
        """address: the client's, None for this machine."""
        now = self._clock()
        with self._lock:
            self._failures = {
                who: (count, until) for who, (count, until) in self._failures.items() if now < until + FORGET_AFTER_S
            }
            who = _network(address)
            if who not in self._failures and len(self._failures) >= MOST_ADDRESSES:
                who = "others"
            count, until = self._failures.get(who, (0, now))
            if now < until:
                return Attempt(right=False, checked=False, wait_s=until - now)
            digests = (hashlib.sha256(text.encode(errors="replace")).digest() for text in (given, passphrase))
            if hmac.compare_digest(*digests):
                self._failures.pop(who, None)
                return Attempt(right=True, checked=True)
            count += 1
            wait_s = 0.0 if count < FREE_ATTEMPTS else min(LONGEST_WAIT_S, 2.0 ** min(count - FREE_ATTEMPTS, 10))
            self._failures[who] = count, now + wait_s
            return Attempt(right=False, checked=True, wait_s=wait_s)


def _network(address: str | None) -> str:
    """Whoever has one IPv6 address has its whole /64."""
    try:
        parsed = ipaddress.ip_address(address or "127.0.0.1")
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
