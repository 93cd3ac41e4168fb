"""Lets readers into the dashboard, or shows them what they can do about it. admission.py decides."""

import logging
import math
from pathlib import Path

import streamlit as st
from streamlit.errors import StreamlitAuthError, StreamlitSecretNotFoundError

from survey_app.dashboard import admission
from survey_app.dashboard.admission import Attempts, Rules, SecretsError

COOKIE = "huejury_reader"
TOKEN = "reader_token"  # in the session: the cookie of a session is that of its websocket's handshake

logger = logging.getLogger("huejury.dashboard")

# Of this server, for all its sessions.
_attempts = Attempts()
_signed_out: set[str] = set()  # ids of tokens; whoever copied one does not outlive its owner's signing out

_cookie = st.components.v2.component(
    "huejury_reader_cookie", js=(Path(__file__).parent / "cookie.js").read_text(encoding="utf-8")
)


def admitted() -> bool:
    """Whether this reader may see the dashboard; if not, what they can do about it has been drawn.

    A page asks before it draws anything. Fragments are rerun without their page: they ask with recheck().
    """
    try:
        rules = _rules()
    except SecretsError as error:
        st.title("HueJury")
        st.error(str(error))
        return False
    if _admitted(rules):
        _welcome(rules)
        return True
    st.title("HueJury")
    if rules.providers:
        _ask_to_sign_in(rules)
    elif rules.passphrase is not None:
        _ask_for_passphrase(rules.passphrase)
    else:
        _explain_this_machine()
    return False


def recheck() -> None:
    """The first line of each fragment on the dashboard: has its reader been signed out since, or the token expired,
    the fragment stops here and the page is drawn anew, which asks again."""
    try:
        still_admitted = _admitted(_rules())
    except SecretsError:
        still_admitted = False
    if not still_admitted:
        st.rerun()


def _rules() -> Rules:
    """Raises SecretsError."""
    try:
        return admission.read_rules(st.secrets.to_dict())
    except (StreamlitSecretNotFoundError, OSError, UnicodeDecodeError) as error:
        if isinstance(error, StreamlitSecretNotFoundError) and error.error_id == "no-secrets-found":
            return Rules()
        logger.error("The secrets cannot be read: %s", type(error).__name__)  # its message may quote them
        raise SecretsError("The secrets file cannot be read: mend it, then reload this page.") from error


def _admitted(rules: Rules) -> bool:
    if rules.providers:
        return st.user.get("is_logged_in") is True and admission.email_allowed(
            st.user.get("email"), st.user.get("email_verified"), rules.emails
        )
    if rules.passphrase is not None:
        return bool(_token_ids(rules.passphrase) - _signed_out)
    return _doubt() is None


def _doubt() -> str | None:
    headers = st.context.headers
    return admission.doubt_of_this_machine(
        st.context.ip_address, [(name, value) for name in headers for value in headers.get_all(name)]
    )


def _tokens() -> list[str]:
    return [token for token in (st.session_state.get(TOKEN), st.context.cookies.get(COOKIE)) if token]


def _token_ids(passphrase: str) -> set[str]:
    ids = (admission.token_id(passphrase, token) for token in _tokens())
    return {token for token in ids if token is not None}


def _welcome(rules: Rules) -> None:
    """What a reader who is in sees above the dashboard: how to leave it."""
    if not rules.providers and rules.passphrase is None:
        return
    with st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center", key="reader"):
        if rules.passphrase is None:
            st.text(str(st.user.get("email")), width="content")
            st.button("Sign out", on_click=st.logout, type="tertiary")
        else:
            st.button("Sign out", on_click=_sign_out, args=(rules.passphrase,), type="tertiary")
            token = st.session_state.get(TOKEN)
            if token is not None and token != st.context.cookies.get(COOKIE):
                _set_cookie(token, admission.TOKEN_LIFETIME_S)


# --- An identity provider ---


def _ask_to_sign_in(rules: Rules) -> None:
    if st.user.get("is_logged_in") is True:
        email = st.user.get("email")
        who = f"`{email}`" if email else "somebody without an e-mail address"
        st.error(
            f"You are signed in as {who}, who may not see this dashboard. Ask its owner to add your address, or "
            "sign in as somebody else."
        )
        st.button("Sign out", on_click=st.logout, type="primary")
        return
    st.write("Only those whom its owner has listed may see this dashboard.")
    for provider in rules.providers:
        name = "Sign in" if provider == "default" else f"Sign in with {provider.capitalize()}"
        if st.button(name, type="primary", key=f"sign in {provider}"):
            try:
                st.login(provider)
            except StreamlitAuthError as error:
                logger.error("Nobody can sign in: %s", error)
                st.error("Signing in is not set up completely; the server's log says what is missing.")


# --- A passphrase ---


def _ask_for_passphrase(passphrase: str) -> None:
    if _tokens():  # expired, or signed out
        _set_cookie("", 0)
    with st.form("passphrase", clear_on_submit=True, width=400):
        given = st.text_input("Passphrase of this dashboard", type="password", autocomplete="current-password")
        sent = st.form_submit_button("Sign in", type="primary")
    if not sent or not given:
        return
    attempt = _attempts.attempt(st.context.ip_address, given, passphrase)
    if attempt.right:
        st.session_state[TOKEN] = admission.new_token(passphrase)
        st.rerun()
    wrong = "That is not the passphrase. " if attempt.checked else ""
    wait = f"Please wait {math.ceil(attempt.wait_s)} s before the next attempt." if attempt.wait_s else ""
    st.error(wrong + wait)


def _sign_out(passphrase: str) -> None:
    _signed_out.update(_token_ids(passphrase))  # tokens stay in the session: so the page knows of a cookie to delete


def _set_cookie(token: str, max_age_s: int) -> None:
    path = "/" + str(st.get_option("server.baseUrlPath") or "").strip("/")
    data = {"name": COOKIE, "value": token, "path": path, "max_age_s": max_age_s}
    _cookie(key="reader cookie", data=data, width="content")


# --- This machine ---


def _explain_this_machine() -> None:
    st.error(
        f"This dashboard answers only to the machine that it runs on, and {_doubt()}. To let others read it, set a "
        "passphrase of its own or an identity provider in .streamlit/secrets.toml; the README says how."
    )
