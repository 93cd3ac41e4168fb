"""Who may see the dashboard, on real servers: by bare websocket, in Chromium, with a real identity provider."""

import ast
import base64
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from sqlalchemy import update
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.util import calc_hash
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from db.schema import Experiment
from db.store import open_database, write_session
from db.studies import create_study
from survey_app.dashboard.access import COOKIE
from survey_app.dashboard.admission import FREE_ATTEMPTS, TOKEN_LIFETIME_S, new_token
from tests.identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider
from tests.survey_browser import (
    CHECKOUT,
    DESKTOP,
    PHONE,
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

PASSPHRASE = "correct horse battery"
THE_DASHBOARD = "Experiment"  # the label of its first list, which nothing else has
REFUSAL = "answers only to the machine"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("access") / "huejury.sqlite"
    engine = open_database(path)
    running = add_experiment(engine, "running", images=12)
    with write_session(engine) as session:
        session.execute(update(Experiment).where(Experiment.id == running).values(status="running"))
    add_experiment(engine, images=12)
    create_study(engine, "cats", name="short", practice_count=1, question_count=2, exposures_ms=[50], sentinel_share=0)
    engine.dispose()
    return path


class Visitor:
    """Speaks to a server as Streamlit's page does, but says what it wants."""

    def __init__(self, server: Server, *, host: str = "127.0.0.1", **headers: str) -> None:
        self.origin = f"http://{host}:{server.port}"
        self.socket = connect(
            f"ws://{host}:{server.port}/_stcore/stream",
            sock=socket.create_connection(("127.0.0.1", server.port)),
            origin=Origin(self.origin),
            subprotocols=[Subprotocol("streamlit")],
            additional_headers={name.replace("_", "-"): value for name, value in headers.items()},
            user_agent_header="Mozilla/5.0",
            max_size=None,
            legacy=True,
        )
        self.fragments: set[str] = set()
        self.buttons: dict[str, str] = {}

    def close(self) -> None:
        self.socket.close()

    def send(
        self,
        path: str,
        *,
        page_hash: str = "",
        page_name: str = "",
        query: str = "",
        fragment: str = "",
        press: str = "",
    ) -> None:
        """Ask for a run of the page, or of one of its fragments."""
        message = BackMsg()
        rerun = message.rerun_script
        rerun.page_script_hash, rerun.page_name, rerun.fragment_id = page_hash, page_name, fragment
        rerun.query_string, rerun.context_info.url = query, self.origin + path
        if press:
            rerun.widget_states.widgets.add(id=self.buttons[press]).trigger_value = True
        self.socket.send(message.SerializeToString())

    def ask(self, path: str, **options: str) -> str:
        """All that the server sends until a run of the page has finished, as text."""
        self.send(path, **options)
        seen = ""
        while True:
            received = self.socket.recv(timeout=60)
            assert isinstance(received, bytes)
            forward = ForwardMsg()
            forward.ParseFromString(received)
            seen += str(forward)
            element = forward.delta.new_element
            if element.HasField("button"):
                self.buttons[element.button.label] = element.button.id
            self.fragments |= {forward.delta.fragment_id, forward.auto_rerun.fragment_id} - {""}
            finished = (ForwardMsg.FINISHED_SUCCESSFULLY, ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY)
            if forward.WhichOneof("type") == "script_finished" and forward.script_finished in finished:
                return seen


# --- Only this machine ---


@pytest.fixture(scope="module")
def local(database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(database, tmp_path_factory.mktemp("server") / "log")
    yield server
    server.stop()


def test_without_secrets_it_answers_to_this_machine_alone(local: Server) -> None:
    for host in ("127.0.0.1", "localhost"):
        with closing(Visitor(local, host=host)) as visitor:
            seen = visitor.ask("/dashboard", page_name="dashboard")
            assert THE_DASHBOARD in seen
            assert REFUSAL not in seen
    # Uvicorn believes X-Forwarded-For from this machine: the address alone would be 127.0.0.1 here.
    forwarded: list[dict[str, str]] = [
        {"X_Forwarded_For": "127.0.0.1"},
        {"X_Forwarded_For": "192.0.2.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"X_Real_IP": "127.0.0.1"},
        {"Via": "1.1 proxy"},
    ]
    for headers in [*forwarded, {"host": "lab.example"}, {"host": "127.0.0.1.lab.example"}]:
        with closing(Visitor(local, **headers)) as visitor:
            seen = visitor.ask("/dashboard", page_name="dashboard")
            assert THE_DASHBOARD not in seen
            assert REFUSAL in seen


def test_no_other_way_leads_past_the_question(local: Server) -> None:
    page_hash = calc_hash("dashboard")
    with closing(Visitor(local)) as insider:
        assert page_hash in insider.ask("/dashboard", page_name="dashboard")  # it is the page's
        fragments = insider.fragments
    assert fragments
    ways = [
        {"path": path, "page_hash": hash_, "page_name": name}
        for path in ("/", "/dashboard", "/dashboard/", "//dashboard", "/x/dashboard", "/withdraw")
        for hash_, name in [("", ""), (page_hash, ""), ("", "dashboard"), (page_hash, "dashboard")]
    ]
    for way in ways:
        with closing(Visitor(local, X_Forwarded_For="192.0.2.1")) as visitor:
            seen = visitor.ask(**way)
            assert THE_DASHBOARD not in seen, way
            leads_there = way["path"].rstrip("/").endswith("/dashboard") and way["page_hash"] + way["page_name"]
            assert (REFUSAL in seen) == bool(leads_there), way
            for fragment in fragments:
                visitor.send(**way, fragment=fragment)  # not answered at all where the session has no such fragment
                assert THE_DASHBOARD not in visitor.ask(**way), way


def test_participants_never_hear_of_it_and_its_code_is_not_loaded_for_them(
    browser: Browser, database: Path, tmp_path: Path
) -> None:
    modules = tmp_path / "modules.json"
    app = tmp_path / "app.py"
    source = (CHECKOUT / "survey_app" / "app.py").read_text()
    listing = "import atexit, json, sys\nfrom pathlib import Path\n" + (
        f"atexit.register(lambda: Path({str(modules)!r}).write_text(json.dumps(sorted(sys.modules))))\n"
    )
    checkout = "CHECKOUT = Path(__file__).resolve().parent.parent"
    assert checkout in source
    app.write_text(listing + source.replace(checkout, f"CHECKOUT = Path({str(CHECKOUT)!r})"))
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


# --- A passphrase ---


@pytest.fixture(scope="module")
def protected(database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    secrets = f'[dashboard]\npassphrase = "{PASSPHRASE}"\n'
    server = Server(database, tmp_path_factory.mktemp("protected") / "log", secrets=secrets)
    yield server
    server.stop()


def sign_in(page: Page, passphrase: str) -> None:
    field = page.get_by_label("Passphrase")
    field.fill(passphrase)
    field.press("Enter")
    expect(field).not_to_have_value(passphrase)


def inside(page: Page) -> None:
    page.get_by_label(THE_DASHBOARD).wait_for()
    expect(page.get_by_label("Passphrase")).to_have_count(0)


def outside(page: Page) -> None:
    page.get_by_label("Passphrase").wait_for()
    expect(page.get_by_label(THE_DASHBOARD)).to_have_count(0)


def reader_cookie(context: BrowserContext) -> str | None:
    found = [cookie for cookie in context.cookies() if cookie.get("name") == COOKIE]
    assert all(cookie.get("sameSite") == "Strict" and cookie.get("path") == "/" for cookie in found)
    return found[0].get("value") if found else None


def test_passphrase(browser: Browser, protected: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    context = browser.new_context(viewport=PHONE, color_scheme="dark")
    page = context.new_page()
    page.goto(f"{protected.url}dashboard?view=Sweep")
    outside(page)
    for _ in range(FREE_ATTEMPTS):
        sign_in(page, "wrong horse battery")
        page.get_by_text("That is not the passphrase").wait_for()
    page.get_by_text("Please wait").wait_for()
    check_looks(page)
    sign_in(page, PASSPHRASE)  # too soon: refused though right
    expect(page.get_by_text("That is not the passphrase")).to_have_count(0)
    page.get_by_text("Please wait").wait_for()
    outside(page)
    page.wait_for_timeout(1100)
    sign_in(page, PASSPHRASE)
    inside(page)
    assert "view=Sweep" in page.url

    page.wait_for_function(f"document.cookie.includes('{COOKIE}=')")  # its script may come after the page
    page.reload()
    inside(page)
    token = reader_cookie(context)
    assert token is not None
    other = context.new_page()
    other.goto(f"{protected.url}dashboard")
    inside(other)

    button(page, "Sign out").click()
    outside(page)
    page.wait_for_timeout(300)
    assert reader_cookie(context) is None
    page.reload()
    outside(page)
    outside(other)  # signed out everywhere: the page that follows the votes asks again by itself

    now = time.time()
    with monkeypatch.context() as earlier:
        earlier.setattr(time, "time", lambda: now - TOKEN_LIFETIME_S - 60)
        expired = new_token(PASSPHRASE)
    another = new_token("another passphrase")
    spelled_otherwise = token[:-1] + chr(ord(token[-1]) + 1)  # base64 of the same bytes: two bits are spare
    for value in (token, spelled_otherwise, expired, another, "x"):
        context.add_cookies([{"name": COOKIE, "value": value, "url": protected.url, "sameSite": "Strict"}])
        page.reload()
        outside(page)
    context.add_cookies([{"name": COOKIE, "value": new_token(PASSPHRASE), "url": protected.url, "sameSite": "Strict"}])
    page.reload()
    inside(page)
    context.close()

    told = protected.log.read_text() + page.url
    for secret in (PASSPHRASE, "wrong horse", token, expired):
        assert secret not in told


def test_fragments_do_not_outlive_signing_out_or_a_new_passphrase(database: Path, tmp_path: Path) -> None:
    """That of the page of a running sweep, which is asked again and again for how far it is."""
    how_far = "Last asked at"
    page = {"path": "/dashboard", "page_hash": calc_hash("dashboard"), "query": "experiment=running&view=Sweep"}
    secrets = f'[dashboard]\npassphrase = "{PASSPHRASE}"\n'
    server = Server(database, tmp_path / "log", secrets=secrets)
    try:
        for end in ("sign out", "new passphrase"):
            cookie = f"{COOKIE}={new_token(PASSPHRASE)}"
            with closing(Visitor(server, Cookie=cookie)) as one, closing(Visitor(server, Cookie=cookie)) as other:
                assert how_far in one.ask(**page)
                assert "Sign out" in other.ask(**page)
                (fragment,) = one.fragments
                seen = one.ask(**page, fragment=fragment)
                assert how_far in seen
                assert "Sign out" not in seen  # the page itself was not run again
                if end == "sign out":
                    assert "Passphrase" in other.ask(**page, press="Sign out")
                else:
                    server.secrets.write_text('[dashboard]\npassphrase = "another passphrase"\n')
                    while "Passphrase" not in other.ask(**page):
                        time.sleep(0.1)
                seen = one.ask(**page, fragment=fragment)
                assert how_far not in seen
                assert "Passphrase" in seen
    finally:
        server.stop()


def test_every_fragment_of_the_dashboard_asks_first_whether_its_reader_is_still_admitted() -> None:
    first_lines = []
    for path in (CHECKOUT / "survey_app" / "dashboard").glob("*.py"):
        source = path.read_text(encoding="utf-8")
        functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
        rerun_alone = [
            function
            for function in functions
            if any(re.search(r"\b(fragment|dialog)\b", ast.unparse(decorator)) for decorator in function.decorator_list)
        ]
        assert len(re.findall(r"\bst\.(?:fragment|dialog)\b", source)) == len(rerun_alone), path  # no other way to one
        first_lines += [ast.unparse(function.body[0]) for function in rerun_alone]
    assert len(first_lines) >= 3
    assert set(first_lines) == {"access.recheck()"}


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
    server = Server(database, tmp_path_factory.mktemp("federated") / "log", secrets=secrets)
    yield server
    server.stop()


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
        page.goto(f"{federated.url}dashboard")
        button(page, "Sign in").wait_for()
        expect(page.get_by_label(THE_DASHBOARD)).to_have_count(0)
        check_looks(page)
        button(page, "Sign in").click()
        if may:
            page.get_by_text(str(claims["email"])).wait_for()  # brought back to where they came from
            inside(page)
        else:
            may_not.wait_for()
        page.wait_for_url(re.compile("/dashboard($|[?])"))
        page.reload()
        button(page, "Sign out").wait_for()
        expect(page.get_by_label(THE_DASHBOARD)).to_have_count(1 if may else 0)
        expect(may_not).to_have_count(0 if may else 1)
        check_looks(page)
        button(page, "Sign out").click()
        button(page, "I agree and take part").wait_for()  # Streamlit leads to the first page
    context.close()
    assert not re.search("Traceback|Error", federated.log.read_text())
