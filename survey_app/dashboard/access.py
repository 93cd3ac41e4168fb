"""Who may see the dashboard, where an identity provider is configured; else whoever reaches its address may.

The secrets name the provider in [auth], as Streamlit has it, and the addresses that may read in [dashboard] emails.
Whatever is in doubt is refused.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import streamlit as st
from streamlit.errors import StreamlitAuthError, StreamlitSecretNotFoundError

from db.errors import UserError

logger = logging.getLogger("huejury.dashboard")

SHORTEST_COOKIE_SECRET = 32  # characters


class SecretsError(UserError):
    """The secrets cannot be used; the message quotes nothing secret."""


@dataclass(frozen=True)
class Rules:
    """Who may: whom one of the providers knows by one of the e-mail addresses. Without providers, everybody."""

    providers: tuple[str, ...] = ()  # as st.login() takes them, "default" being [auth] itself
    emails: tuple[str, ...] = ()  # addresses, or "*@domain"


def admitted() -> bool:
    """Whether this reader may see the dashboard; if not, what they can do about it has been drawn."""
    try:
        rules = _rules()
    except SecretsError as error:
        st.title("HueJury")
        st.error(str(error))
        return False
    if not rules.providers:
        return True
    if st.user.get("is_logged_in") is not True:
        _ask_to_sign_in(rules)
        return False
    email = st.user.get("email")
    if not email_allowed(email, st.user.get("email_verified"), rules.emails):
        st.title("HueJury")
        who = f"`{email}`" if email else "somebody without an e-mail address"
        st.error(
            f"You are signed in as {who}, who may not see this dashboard. Ask its owner to add your address, or "
            "sign in as somebody else."
        )
        st.button("Sign out", on_click=st.logout, type="primary")
        return False
    with st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center", key="reader"):
        st.text(str(email), width="content")
        st.button("Sign out", on_click=st.logout, type="tertiary")
    return True


def _ask_to_sign_in(rules: Rules) -> None:
    st.title("HueJury")
    st.write("Only those whom its owner has listed may see this dashboard.")
    for provider in rules.providers:
        name = "Sign in" if provider == "default" else f"Sign in with {provider.capitalize()}"
        if st.button(name, type="primary", key=f"sign in {provider}"):
            try:
                st.login(provider)
            except StreamlitAuthError as error:
                logger.error("Nobody can sign in: %s", error)
                st.error("Signing in is not set up completely; the server's log says what is missing.")


def _rules() -> Rules:
    """Raises SecretsError."""
    try:
        return read_rules(st.secrets.to_dict())
    except (StreamlitSecretNotFoundError, OSError, UnicodeDecodeError) as error:
        if isinstance(error, StreamlitSecretNotFoundError) and error.error_id == "no-secrets-found":
            return Rules()
        logger.error("The secrets cannot be read: %s", type(error).__name__)  # its message may quote them
        raise SecretsError("The secrets file cannot be read: mend it, then reload this page.") from error


def read_rules(secrets: Mapping[str, Any]) -> Rules:
    """What the secrets say about the dashboard. Raises SecretsError."""
    dashboard = secrets.get("dashboard", {})
    if not isinstance(dashboard, Mapping):
        raise SecretsError("In the secrets, dashboard has to be a table: [dashboard].")
    unknown = sorted(dashboard.keys() - {"emails"})
    if unknown:
        raise SecretsError(f"In the secrets' [dashboard] only emails is known, not {unknown[0]!r}.")
    if "auth" not in secrets:
        if dashboard:
            raise SecretsError("The secrets name e-mail addresses but no identity provider: add [auth].")
        return Rules()
    auth = secrets["auth"]
    if not isinstance(auth, Mapping):
        raise SecretsError("In the secrets, auth has to be a table: [auth].")
    # Streamlit takes any. Who guesses it can sign in as anybody.
    if len(str(auth.get("cookie_secret", ""))) < SHORTEST_COOKIE_SECRET:
        raise SecretsError(
            f"In the secrets, [auth] cookie_secret has to be a random text of at least {SHORTEST_COOKIE_SECRET} "
            "characters."
        )
    # Named providers are tables in [auth]; an unnamed one has its settings in [auth] itself.
    named = tuple(name for name, value in auth.items() if isinstance(value, Mapping) and name != "client_kwargs")
    unnamed = ("default",) if "client_id" in auth or not named else ()
    return Rules(unnamed + tuple(name for name in named if name != "default"), _emails(dashboard.get("emails", [])))


def _emails(listed: object) -> tuple[str, ...]:
    if not isinstance(listed, list) or not listed:
        raise SecretsError(
            "Nobody may see the dashboard yet: list who may in the secrets' [dashboard], for instance "
            '`emails = ["ada@lab.example", "*@lab.example"]`.'
        )
    for number, pattern in enumerate(listed, 1):
        address = isinstance(pattern, str) and pattern.isascii() and re.fullmatch(r"(\*|[^@*\s]+)@[^@*\s]+", pattern)
        if not address:
            raise SecretsError(
                "In the secrets, each of [dashboard] emails has to be an address such as `ada@lab.example`, or "
                f"`*@lab.example` for all of a domain; number {number} is neither."
            )
    return tuple(listed)


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
