"""Who may see the dashboard, as decided: properties of the decisions, with clocks that are moved by hand."""

import ipaddress
import threading
import time
from urllib.parse import urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from survey_app.dashboard import admission
from survey_app.dashboard.admission import (
    BROWSERS_SEND,
    FORGET_AFTER_S,
    FREE_ATTEMPTS,
    LONGEST_WAIT_S,
    MOST_ADDRESSES,
    TOKEN_LIFETIME_S,
    Attempts,
    Rules,
    SecretsError,
    doubt_of_this_machine,
    email_allowed,
    new_token,
    read_rules,
    token_id,
)

# What Chromium 150 sent to a Streamlit server.
HANDSHAKE = {
    "Host": "localhost:8501",
    "Connection": "Upgrade",
    "Pragma": "no-cache",
    "Cache-Control": "no-cache",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64)",
    "Upgrade": "websocket",
    "Origin": "http://localhost:8501",
    "Sec-Websocket-Version": "13",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-GB,en;q=0.9",
    "Cookie": "_streamlit_xsrf=2|12ab",
    "Sec-Websocket-Key": "x8Wv3vKbx1N0dVpTqHlDzA==",
    "Sec-Websocket-Extensions": "permessage-deflate; client_max_window_bits",
    "Sec-Websocket-Protocol": "streamlit, 2|12ab",
}


def doubt(address: str | None = None, **changed: str) -> str | None:
    headers = {**HANDSHAKE, **{name.replace("_", "-"): value for name, value in changed.items()}}
    return doubt_of_this_machine(address, headers.items())


# --- This machine ---


@pytest.mark.parametrize("address", [None, "127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["localhost:8501", "LOCALHOST", "127.0.0.1:80", "[::1]:8501", "[::1]"])
def test_a_browser_on_this_machine_is_not_doubted(address: str | None, host: str) -> None:
    assert doubt(address, Host=host, Origin=f"http://{host}") is None
    without_origin = {name: value for name, value in HANDSHAKE.items() if name != "Origin"}
    assert doubt_of_this_machine(address, without_origin.items()) is None


@pytest.mark.parametrize(
    "header",
    [
        *("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "Via", "X-Real-IP", "x-real-ip"),
        *("CF-Connecting-IP", "True-Client-IP", "X-Client-IP", "X-Request-ID", "Traceparent", "X-Scheme"),
    ],
)
def test_whatever_a_proxy_adds_is_doubted(header: str) -> None:
    for value in ("127.0.0.1", "localhost", "for=127.0.0.1", ""):
        assert header.lower() in str(doubt(**{header: value}))


@given(st.text("abcdefghijklmnopqrstuvwxyzABCXYZ-", min_size=1))
def test_any_header_that_browsers_do_not_send_is_doubted(name: str) -> None:
    assume(name.lower() not in BROWSERS_SEND and not name.lower().startswith("sec-"))
    assert doubt(**{name: "127.0.0.1"})


@given(st.ip_addresses())
def test_addresses(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert (doubt(str(address)) is None) == address.is_loopback
    if isinstance(address, ipaddress.IPv4Address):
        assert (doubt(f"::ffff:{address}") is None) == address.is_loopback


@pytest.mark.parametrize(
    "host",
    [
        *("lab.example", "localhost.lab.example", "127.0.0.1.lab.example", "lab.example:8501", "0.0.0.0:8501"),
        *("192.168.1.5:8501", "localhost:", "localhost:8501:1", "localhost/", "ada@localhost", "[::]:8501", ""),
        *(
            "[::ffff:192.168.1.5]",
            "2130706433",
            "0x7f.1",
            "127.1",
            "ⓛocalhost",
            "localhost\n",
            "localhost, lab.example",
        ),
    ],
)
def test_other_names_are_doubted(host: str) -> None:
    assert doubt(Host=host, Origin=f"http://{host}")
    assert doubt(Host=host)
    assert doubt(Origin=f"http://{host}")


@given(st.text("localhst127.0:[]@/?#%example ", max_size=24))
def test_whatever_is_believed_names_this_machine_for_other_readers_of_urls_too(host: str) -> None:
    if doubt(Host=host, Origin=f"http://{host}") is None:
        name = urlsplit(f"http://{host}").hostname
        assert name is not None
        assert name == "localhost" or ipaddress.ip_address(name).is_loopback


def test_origins_and_repeated_hosts() -> None:
    for origin in ("null", "file://", "chrome-extension://localhost", "localhost", "https://lab.example"):
        assert doubt(Origin=origin)
    assert doubt_of_this_machine(None, [*HANDSHAKE.items(), ("host", "localhost")])
    assert doubt_of_this_machine(None, [*HANDSHAKE.items(), ("Origin", "http://lab.example")])
    assert doubt_of_this_machine(None, [])


# --- The secrets ---

AUTH = {"client_id": "x", "redirect_uri": "https://lab.example/oauth2callback", "cookie_secret": "s" * 32}


def test_rules() -> None:
    assert read_rules({}) == read_rules({"dashboard": {}, "other": 1}) == Rules()
    assert read_rules({"dashboard": {"passphrase": "twelve chars"}}) == Rules(passphrase="twelve chars")
    emails = ["ada@lab.example", "*@lab.example"]
    both = {"auth": AUTH, "dashboard": {"emails": emails, "passphrase": "twelve chars"}}
    assert read_rules(both) == Rules(providers=("default",), emails=tuple(emails))
    named = {"auth": {"cookie_secret": "s" * 32, "google": {}, "microsoft": {}, "client_kwargs": {}}}
    assert read_rules({**named, "dashboard": {"emails": emails}}).providers == ("google", "microsoft")


@pytest.mark.parametrize(
    ("secrets", "said"),
    [
        ({"dashboard": {"passphrase": "elevenchars"}}, "at least 12 characters"),
        ({"dashboard": {"passphrase": "     x      "}}, "at least 12 characters"),
        ({"dashboard": {"passphrase": 123456789012}}, "at least 12 characters"),
        ({"dashboard": {"passphrase": ""}}, "at least 12 characters"),
        ({"dashboard": "twelve chars"}, r"\[dashboard\]"),
        ({"dashboard": {"pasphrase": "twelve chars"}}, "'pasphrase'"),
        ({"dashboard": {"emails": ["ada@lab.example"]}}, "no identity provider"),
        ({"auth": AUTH}, "Nobody may see"),
        ({"auth": AUTH, "dashboard": {"passphrase": "twelve chars"}}, "Nobody may see"),
        ({"auth": AUTH, "dashboard": {"emails": []}}, "Nobody may see"),
        ({"auth": AUTH, "dashboard": {"emails": "ada@lab.example"}}, "Nobody may see"),
        ({"auth": AUTH, "dashboard": {"emails": ["ada@lab.example", "*"]}}, "number 2"),
        ({"auth": AUTH, "dashboard": {"emails": ["*@*.example"]}}, "number 1"),
        ({"auth": AUTH, "dashboard": {"emails": ["a*@lab.example"]}}, "number 1"),
        ({"auth": AUTH, "dashboard": {"emails": ["lab.example"]}}, "number 1"),
        ({"auth": {**AUTH, "cookie_secret": "xxx"}, "dashboard": {"emails": ["*@lab.example"]}}, "cookie_secret"),
        ({"auth": {"client_id": "x"}, "dashboard": {"emails": ["*@lab.example"]}}, "cookie_secret"),
        ({"auth": "google"}, r"\[auth\]"),
        ({"auth": {}}, "cookie_secret"),
    ],
)
def test_secrets_that_let_nobody_in(secrets: dict[str, object], said: str) -> None:
    with pytest.raises(SecretsError, match=said) as raised:
        read_rules(secrets)
    assert "elevenchars" not in str(raised.value)


# --- E-mail addresses ---

PATTERNS = ("ada@lab.example", "*@Inst.example")


@pytest.mark.parametrize("email", ["ada@lab.example", "Ada@LAB.example", "bob@inst.example", "B.O+b@INST.EXAMPLE"])
def test_addresses_that_may(email: str) -> None:
    assert all(email_allowed(email, verified, PATTERNS) for verified in (None, True, "true"))
    assert not any(email_allowed(email, verified, PATTERNS) for verified in (False, "false", "", 0, 2, [True]))
    assert not email_allowed(email, True, ())


@pytest.mark.parametrize(
    "email",
    [
        *("bob@lab.example", "ada@sub.lab.example", "ada@lab.example.org", "bob@sub.inst.example", "b@xinst.example"),
        *(
            "@inst.example",
            "*@inst.example ",
            "eve@evil.example@inst.example",
            "eve@inst.example\n",
            "ada",
            "",
            None,
            1,
        ),
        # The Kelvin sign and the long s are k and s in the other case, and would let strangers in.
        *("\u212a@inst.example", "bob@\u0130nst.example", "bob@in\u017ft.example"),
    ],
)
def test_addresses_that_may_not(email: object) -> None:
    assert not email_allowed(email, True, PATTERNS)


@given(st.emails(), st.emails())
def test_an_address_lets_in_itself_alone_and_a_domain_its_own(one: str, other: str) -> None:
    assume(not one.startswith("*@"))  # which stands for a domain
    assert email_allowed(one, None, [one])
    assert email_allowed(other, None, [one]) == (one.lower() == other.lower())
    one_domain, other_domain = (email.rpartition("@")[2].lower() for email in (one, other))
    assert email_allowed(other, None, [f"*@{one_domain}"]) == (one_domain == other_domain)


# --- Tokens ---


def test_tokens_are_valid_for_their_time_and_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    token = new_token("correct horse")
    ids = {token_id("correct horse", token), token_id("correct horse", new_token("correct horse"))}
    assert len(ids) == 2
    assert None not in ids
    assert token_id("correct horsf", token) is None
    assert "horse" not in token
    for age_s, valid in [(TOKEN_LIFETIME_S - 5, True), (TOKEN_LIFETIME_S + 5, False), (-60, False)]:
        monkeypatch.setattr(time, "time", lambda age_s=age_s: now + age_s)
        assert (token_id("correct horse", token) is not None) is valid


TOKEN = new_token("correct horse")


@given(st.text(max_size=80) | st.binary(max_size=60).map(lambda data: data.decode("latin-1")), st.integers(0, 100))
def test_no_other_text_is_a_token(text: str, position: int) -> None:
    assert token_id("correct horse", text) is None
    position %= len(TOKEN)
    changed = TOKEN[:position] + text[:1] + TOKEN[position + 1 :]
    # Base64 has several spellings: another one of the same signature is the same token.
    assert token_id("correct horse", changed) in (None, token_id("correct horse", TOKEN))
    if position <= TOKEN.rindex("."):
        assert (token_id("correct horse", changed) is None) == (changed != TOKEN)


# --- Attempts ---


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


RIGHT = "correct horse"


def fail(attempts: Attempts, clock: Clock, times: int, address: str | None = None) -> None:
    for _ in range(times):
        attempt = attempts.attempt(address, "wrong", RIGHT)
        assert attempt.checked
        assert not attempt.right
        clock.now += attempt.wait_s


def test_waits_grow_up_to_a_limit_and_the_right_passphrase_works_after_them() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    waits = []
    for _ in range(12):
        attempt = attempts.attempt(None, "wrong", RIGHT)
        waits.append(attempt.wait_s)
        if attempt.wait_s:
            clock.now += attempt.wait_s - 0.01
            refused = attempts.attempt(None, RIGHT, RIGHT)
            assert (refused.right, refused.checked) == (False, False)
            assert refused.wait_s == pytest.approx(0.01)
            clock.now += 0.02
    assert waits == [0, 0, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30]
    assert attempts.attempt(None, RIGHT, RIGHT).right
    assert attempts.attempt(None, "wrong", RIGHT).wait_s == 0  # all forgotten


def test_nobody_keeps_others_waiting() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    fail(attempts, clock, 20, "2001:db8::1")
    attempts.attempt("2001:db8::1", "wrong", RIGHT)
    assert not attempts.attempt("2001:db8::2", RIGHT, RIGHT).checked  # the same network
    for address in (None, "2001:db8:0:1::1", "192.0.2.1", "::ffff:192.0.2.2"):
        assert attempts.attempt(address, RIGHT, RIGHT).right
    clock.now += LONGEST_WAIT_S + FORGET_AFTER_S
    assert attempts.attempt("2001:db8::1", "wrong", RIGHT).wait_s == 0


def test_guessing_from_very_many_addresses_is_slow_too() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    checked = sum(
        attempts.attempt(str(ipaddress.IPv4Address(number)), "wrong", RIGHT).checked
        for number in range(MOST_ADDRESSES + 100)
    )
    assert checked == MOST_ADDRESSES + FREE_ATTEMPTS
    assert len(attempts._failures) == MOST_ADDRESSES + 1


def test_many_at_once_get_no_more_attempts_than_one() -> None:
    attempts = Attempts(Clock())
    barrier = threading.Barrier(8)
    checked: list[bool] = []

    def guess() -> None:
        barrier.wait()
        checked.extend(attempts.attempt(None, "wrong", RIGHT).checked for _ in range(200))

    threads = [threading.Thread(target=guess) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(checked), sum(checked)) == (1600, FREE_ATTEMPTS)


@given(st.text(max_size=30), st.text(min_size=1, max_size=30))
def test_only_the_passphrase_itself_is_right(text: str, passphrase: str) -> None:
    assert Attempts().attempt(None, text, passphrase).right == (text == passphrase)


def test_surrogates_do_no_harm() -> None:
    assert not admission.Attempts().attempt(None, "\ud800", RIGHT).right
