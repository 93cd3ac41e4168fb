"""Who may see the dashboard: what the secrets say, and what a real provider's visitors meet in Chromium; and that the
survey's server knows nothing of it."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page, expect

from db.store import open_database
from db.studies import create_study
from survey_app.dashboard.access import Rules, SecretsError, email_allowed, read_rules
from tests.identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider
from tests.survey_browser import (
    CHECKOUT,
    DESKTOP,
    Server,
    at,
    button,
    check_looks,
    consent,
    go,
    press,
    to_practice,
)
from tests.survey_data import add_experiment

THE_DASHBOARD = "Experiment"  # the label of its first list, which nothing else has
DASHBOARD = "survey_app/dashboard/app.py"

# --- The secrets ---

AUTH = {"client_id": "x", "redirect_uri": "https://lab.example/oauth2callback", "cookie_secret": "s" * 32}


def test_rules() -> None:
    assert read_rules({}) == read_rules({"dashboard": {}, "other": 1}) == Rules()
    emails = ["ada@lab.example", "*@lab.example"]
    both = {"auth": AUTH, "dashboard": {"emails": emails}}
    assert read_rules(both) == Rules(providers=("default",), emails=tuple(emails))
    named = {"auth": {"cookie_secret": "s" * 32, "google": {}, "microsoft": {}, "client_kwargs": {}}}
    assert read_rules({**named, "dashboard": {"emails": emails}}).providers == ("google", "microsoft")


@pytest.mark.parametrize(
    ("secrets", "said"),
    [
        ({"dashboard": "ada@lab.example"}, r"\[dashboard\]"),
        ({"dashboard": {"email": "ada@lab.example"}}, "'email'"),
        ({"dashboard": {"passphrase": "twelve chars"}}, "only emails is known, not 'passphrase'"),
        ({"dashboard": {"emails": ["ada@lab.example"]}}, "no identity provider"),
        ({"auth": AUTH}, "Nobody may see"),
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
    with pytest.raises(SecretsError, match=said):
        read_rules(secrets)


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


# --- The survey's server ---


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("access") / "huejury.sqlite"
    engine = open_database(path)
    add_experiment(engine, images=12)
    create_study(engine, "cats", name="short", practice_count=1, question_count=2, exposure_ms=50, sentinel_share=0)
    engine.dispose()
    return path


@pytest.mark.long
def test_participants_never_hear_of_it_and_its_code_is_not_loaded_for_them(
    browser: Browser, database: Path, tmp_path: Path
) -> None:
    modules = tmp_path / "modules.json"
    app = tmp_path / "app.py"
    source = (CHECKOUT / "survey_app" / "app.py").read_text()
    source = source[source.index("\nimport") :]  # behind other code its docstring would be shown on the page
    listing = "import atexit, json, sys\nfrom pathlib import Path\n" + (
        f"atexit.register(lambda: Path({str(modules)!r}).write_text(json.dumps(sorted(sys.modules))))\n"
    )
    checkout = "CHECKOUT = Path(__file__).resolve().parent.parent"
    assert checkout in source
    app.write_text(listing + source.replace(checkout, f"CHECKOUT = Path({str(CHECKOUT)!r})"))
    settings = tmp_path / ".streamlit"
    settings.mkdir()
    settings.joinpath("config.toml").write_text((CHECKOUT / "survey_app/.streamlit/config.toml").read_text())
    server = Server(database, tmp_path / "log", script=app)
    heard: list[bytes] = []
    try:
        context = browser.new_context(viewport=DESKTOP)
        page = context.new_page()
        page.on("websocket", lambda socket: socket.on("framereceived", lambda data: heard.append(as_bytes(data))))
        addresses: set[str] = set()
        page.on("request", lambda request: addresses.add(request.url))
        consent(page, server, "short")
        to_practice(page)
        for _ in range(2):
            go(page)
            press(page, "left")
        at(page, "answer")
        press(page, "left")
        button(page, "Finish").click()
        page.get_by_text("Your completion code").wait_for()
        page.goto(f"{server.url}withdraw")
        button(page, "Delete all my answers").wait_for()
        for address in sorted(addresses):
            if (
                address.startswith("http") and "/static/" not in address
            ):  # Streamlit's own scripts, which know an icon of this name
                heard += [address.encode(), context.request.get(address).body()]
        context.close()
    finally:
        server.stop()
    everything = b"".join(heard)
    assert b"I agree and take part" in everything
    for word in (b"dashboard", b"passphrase", b"sign in", b"vega"):
        assert word not in everything.lower(), word
    loaded = json.loads(modules.read_text())
    assert "survey_app.survey" in loaded
    # Streamlit itself loads pandas for a component's lists.
    for module in ("survey_app.dashboard", "altair", "statsmodels", "vl_convert", "authlib"):
        assert module not in loaded


def as_bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data


def inside(page: Page) -> None:
    page.get_by_label(THE_DASHBOARD).first.wait_for()


# --- An identity provider ---


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    provider = IdentityProvider()
    yield provider
    provider.stop()


@pytest.fixture(scope="module")
def federated(database: Path, provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    secrets = f"""
        [auth]
        redirect_uri = "http://127.0.0.1:{{port}}/oauth2callback"
        cookie_secret = "{base64.b64encode(bytes(range(32))).decode()}"
        client_id = "{CLIENT_ID}"
        client_secret = "{CLIENT_SECRET}"
        server_metadata_url = "{provider.url}/.well-known/openid-configuration"
        [dashboard]
        emails = ["ada@lab.example", "*@inst.example"]
    """
    server = Server(database, tmp_path_factory.mktemp("federated") / "log", secrets=secrets, script=DASHBOARD)
    yield server
    server.stop()


@pytest.mark.long
def test_identity_provider(browser: Browser, federated: Server, provider: IdentityProvider) -> None:
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    may_not = page.get_by_text("who may not see this dashboard")
    people = [
        ({"sub": "1", "email": "ada@lab.example", "email_verified": True}, True),
        ({"sub": "2", "email": "eve@lab.example", "email_verified": True}, False),
        ({"sub": "3", "email": "ada@lab.example", "email_verified": False}, False),
    ]
    for claims, may in people:
        provider.claims = claims
        page.goto(f"{federated.url}")
        button(page, "Sign in").wait_for()
        expect(page.get_by_label(THE_DASHBOARD)).to_have_count(0)
        check_looks(page)
        button(page, "Sign in").click()
        if may:
            page.get_by_text(str(claims["email"])).wait_for()  # brought back to where they came from
            inside(page)
        else:
            may_not.wait_for()
        page.reload()
        button(page, "Sign out").wait_for()
        expect(page.get_by_label(THE_DASHBOARD)).to_have_count(1 if may else 0)
        expect(may_not).to_have_count(0 if may else 1)
        check_looks(page)
        button(page, "Sign out").click()
        button(page, "Sign in").wait_for()
    context.close()
    assert not re.search("Traceback|Error", federated.log.read_text())
