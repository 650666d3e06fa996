"""Files of clients, tokens, and what each may ask."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samgate.config import Auth, Scheduling, Settings, Tls
from samgate.errors import InvalidArgument, Overloaded, PermissionDenied, Unauthenticated
from samgate.scheduling.queue import Priority
from samgate.security.clients import Client, read_clients
from samgate.security.exposure import check_exposure, is_loopback
from samgate.security.identity import Identities, authorise
from samgate.security.quota import Quotas
from samgate.security.tokens import StoredToken, make_token, matches, token_id

TOKEN, STORED = make_token()
OTHER, _ = make_token()
FILE = f"""
clients:
  - name: studio
    tokens: ["{STORED}"]
    certificates: [studio.local]
    rpcs: [Segment, Embed]
    priority: bulk
    weight: 2.5
    calls_per_s: 4
    burst: 6
    concurrent: 3
    expires: 2027-06-30
"""


def identities(folder: Path, text: str = FILE, today: dt.date = dt.date(2027, 1, 1), **auth: str) -> Identities:
    path = folder / "clients.yaml"
    path.write_text(text)
    settings = Settings(auth=Auth(clients=str(path), **auth), scheduling=Scheduling(client_weights="ci=3"))  # type: ignore[arg-type]
    return Identities(settings, lambda: today)


def test_a_file_says_who_may_do_what() -> None:
    found = read_clients(FILE.encode())
    stored, client = found.by_token[STORED.id]
    assert stored == STORED
    assert client == found.by_certificate["studio.local"]
    assert client == Client(
        "studio", frozenset({"Segment", "Embed"}), Priority.BULK, 2.5, 4.0, 6.0, 3, dt.date(2027, 6, 30)
    )
    assert found.weights == {"studio": 2.5}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("clients: {", "auth.clients: is no YAML"),
        ("- name: a", "auth.clients: must be one list called 'clients'"),
        ("clients: [3]", r"clients\[0\]: must be a mapping"),
        ("clients: [{}]", r"clients\[0\].name: must be 1 to 128 printable"),
        ("clients: [{name: a, colour: red}]", r"clients\[0\].colour: no such field"),
        ("clients: [{name: a}, {name: a}]", r"clients\[1\].name: 'a' is there twice"),
        ("clients: [{name: a, rpcs: [Segment, Delete]}]", r"clients\[0\].rpcs: must be a list of some of Segment"),
        ("clients: [{name: a, priority: high}]", r"clients\[0\].priority: must be one of interactive, bulk, is 'high'"),
        ("clients: [{name: a, weight: .nan}]", r"clients\[0\].weight: must be a number from 0.001 to 1000, is nan"),
        ("clients: [{name: a, calls_per_s: true}]", r"clients\[0\].calls_per_s: must be a number"),
        ("clients: [{name: a, expires: 2027-02-30}]", "auth.clients: is no YAML: day is out of range"),
        ("clients: [{name: a, priority: [bulk]}]", r"clients\[0\].priority: must be one of interactive, bulk"),
        (f"clients: [{{name: a, weight: {10**400}}}]", r"clients\[0\].weight: must be a number from 0.001"),
        ("clients: " + "[" * 5000, "auth.clients: is no YAML"),
        ("clients: [{name: a, burst: 3}]", r"clients\[0\].burst: needs calls_per_s"),
        ("clients: [{name: a, concurrent: 0}]", r"clients\[0\].concurrent: must be a whole number from 1"),
        ("clients: [{name: a, expires: soon}]", r"clients\[0\].expires: must be a date such as"),
        ("clients: [{name: a, proxy: maybe}]", r"clients\[0\].proxy: must be true or false"),
        ("clients: [{name: a, tokens: [hunter2]}]", r"clients\[0\].tokens: is not ID:SHA256 as `samgate token create`"),
        (
            f'clients: [{{name: a, tokens: ["{STORED}"]}}, {{name: b, tokens: ["{STORED}"]}}]',
            rf"clients\[1\].tokens: '{STORED.id}' belongs to a client before",
        ),
        ("clients: [{name: a, certificates: studio}]", r"clients\[0\].certificates: must be a list"),
    ],
)
def test_a_mistake_in_the_file_is_named(text: str, told: str) -> None:
    with pytest.raises(InvalidArgument, match=told):
        read_clients(text.encode())


def test_no_message_about_a_token_holds_it() -> None:
    with pytest.raises(InvalidArgument) as raised:
        read_clients(b"clients: [{name: a, tokens: [samgate_secret]}]")
    assert "samgate_secret" not in str(raised.value)


def test_only_the_whole_token_matches() -> None:
    assert token_id(TOKEN) == STORED.id
    assert matches(TOKEN, STORED)
    assert not matches(OTHER, STORED)
    assert not matches(TOKEN[:-1] + ("A" if TOKEN[-1] != "A" else "B"), STORED)
    assert not matches(TOKEN, None)
    assert TOKEN not in str(STORED)


@given(st.text(max_size=100))
def test_anything_else_is_no_token(text: str) -> None:
    assert token_id(text) is None
    assert not matches(text, StoredToken("0" * 12, "0" * 64))


def test_a_token_says_who_calls_until_it_expires(tmp_path: Path) -> None:
    known = identities(tmp_path)
    client = known.who(f"Bearer {TOKEN}", ())
    assert client is not None
    assert client.name == "studio"
    assert known.who(f"bearer  {TOKEN} ", ()) == client
    assert known.who(None, ("unlisted", "studio.local")) == client
    assert (known.weight("studio"), known.weight("ci"), known.weight("anybody")) == (2.5, 3.0, 1.0)
    late = identities(tmp_path, today=dt.date(2027, 6, 30))
    with pytest.raises(Unauthenticated, match="client 'studio' has expired on 2027-06-30"):
        late.who(f"Bearer {TOKEN}", ())


@pytest.mark.parametrize(
    ("header", "certificate", "told"),
    [
        (None, (), "wants to know who calls"),
        (None, ("stranger",), "no client of this server has the certificate's names stranger"),
        (f"Bearer {OTHER}", (), "none of this server's"),
        (f"Bearer {OTHER}", ("studio.local",), "none of this server's"),  # a wrong token is not made up for
        (f"Basic {TOKEN}", (), "is no bearer token"),
        ("Bearer " + "x" * 10_000, (), "at most 8192 characters"),
        ("Bearer a.b.c", (), "none of this server's"),
        ("", (), "is no bearer token"),
    ],
)
def test_who_is_not_believed_is_told_what_to_do(
    tmp_path: Path, header: str | None, certificate: tuple[str, ...], told: str
) -> None:
    with pytest.raises(Unauthenticated, match=told):
        identities(tmp_path).who(header, certificate)


def test_nobody_is_asked_by_default() -> None:
    assert Identities(Settings()).who("Bearer nonsense", ()) is None


def test_with_roots_alone_any_of_their_certificates_will_do(tmp_path: Path) -> None:
    settings = Settings(tls=Tls("server.crt", "server.key", "roots.crt"))
    client = Identities(settings).who(None, ("edge-7", "other"))
    assert client == Client("edge-7")


def test_rights_are_by_rpc() -> None:
    client = Client("reader", rpcs=frozenset({"ListVariants"}))
    authorise(client, "ListVariants")
    with pytest.raises(PermissionDenied, match="client 'reader' may not call Segment; it may call ListVariants"):
        authorise(client, "Segment")


def test_a_file_that_changes_is_read_again_and_a_broken_one_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samgate.security.files._LOOK_EVERY_S", 0.0)
    known = identities(tmp_path)
    path = tmp_path / "clients.yaml"
    path.write_text(FILE + "  - name: [")
    assert known.who(f"Bearer {TOKEN}", ()) is not None
    path.write_text(FILE.replace("2027-06-30", "2027-02-30"))
    assert known.who(f"Bearer {TOKEN}", ()) is not None
    path.unlink()
    assert known.who(f"Bearer {TOKEN}", ()) is not None
    path.write_text("clients: []")
    with pytest.raises(Unauthenticated):
        known.who(f"Bearer {TOKEN}", ())


def test_calls_a_second_are_bounded_with_bursts() -> None:
    quotas, client = Quotas(), Client("a", calls_per_s=2.0, burst=3.0)
    for _ in range(3):
        quotas.enter(client, 100.0)
    with pytest.raises(Overloaded) as raised:
        quotas.enter(client, 100.1)
    assert raised.value.reason == "quota"
    assert raised.value.retry_after_s == pytest.approx(0.4)
    quotas.enter(client, 100.5)
    quotas.enter(Client("b", calls_per_s=1.0), 100.5)  # another's quota is its own


def test_calls_under_way_are_bounded() -> None:
    quotas, client = Quotas(), Client("a", concurrent=2)
    quotas.enter(client, 0.0)
    quotas.enter(client, 0.0)
    with pytest.raises(Overloaded, match="has 2 calls under way; its limit is 2"):
        quotas.enter(client, 0.0)
    quotas.leave(client)
    quotas.enter(client, 0.0)


@given(st.floats(0.1, 50), st.integers(1, 20), st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_over_any_time_no_more_than_rate_and_burst(rate: float, burst: int, pauses: list[float]) -> None:
    quotas, client, now, let_in = Quotas(), Client("a", calls_per_s=rate, burst=burst), 0.0, 0
    for pause in pauses:
        now += pause
        try:
            quotas.enter(client, now)
        except Overloaded:
            continue
        quotas.leave(client)
        let_in += 1
    assert let_in <= burst + rate * now + 1e-6


def test_names_that_come_and_go_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samgate.security.quota._MAX_KNOWN", 10)
    quotas = Quotas()
    for number in range(100):
        client = Client(f"jwt:{number}", calls_per_s=1.0)
        quotas.enter(client, float(number))
        quotas.leave(client)
    assert len(quotas._uses) == 10


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("unix:/run/x", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.com", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_a_server_open_to_everybody_has_to_be_meant() -> None:
    open_to_all = Settings(host="0.0.0.0")
    with pytest.raises(InvalidArgument, match=r"host: 0\.0\.0\.0 can be reached from other machines"):
        check_exposure(open_to_all)
    meant = Settings(host="0.0.0.0", auth=Auth(anonymous=True))
    assert "is not encrypted" in (check_exposure(meant) or "")
    asking = Settings(host="0.0.0.0", auth=Auth(clients="file"), tls=Tls("a", "b"))
    assert check_exposure(asking) is None
    assert check_exposure(Settings()) is None
