# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Messages through real servers: they arrive, they hold no secret, and a server that fails costs bounded time."""

from __future__ import annotations

import email
import email.policy
import pathlib
import ssl
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._backup import notify
from ansible_collections.hms.postgres.plugins.module_utils._backup.notify import Event, send
from ansible_collections.hms.postgres.tests.real.notify_servers import (
    Hanging,
    MailServer,
    WebServer,
    serving,
    tls_context,
)
from ansible_collections.hms.postgres.tests.real.s3_server import free_port, make_ca

FAILED = Event(
    kind="failure",
    what="backup",
    cluster="hospital",
    database="wards",
    host="db1",
    environment="production",
    job="daily",
    type="full",
    engine="pg_dump",
    where=("/srv/backups", "s3://bucket/site"),
    seconds=3725.0,
    message="Cannot write s3://bucket/site/x: password=hunter2 & <more>.",
    state="Nothing became visible.",
    next_step="Make room there.",
)
DONE = Event("success", "backup", "hospital", "db1", database="wards", id="b-1", bytes=5 * 1024**3, verified=True)
STARTED = Event("start", "backup", "hospital", "db1", database="wards")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr(notify, "_PAUSE", 0.01)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, pathlib.Path]:
    return tls_context(tmp_path_factory.mktemp("tls"))


def test_a_webhook_gets_what_slack_takes(tls: tuple[ssl.SSLContext, pathlib.Path]) -> None:
    context, ca = tls
    with WebServer(tls=context) as server, serving(server) as port:
        config = {"webhook": {"url": f"https://localhost:{port}/services/T0/secret", "ca_bundle": str(ca)}}
        assert send(config, FAILED) == []
        (method, path, _body) = server.got[0]
        assert (method, path) == ("POST", "/services/T0/secret")
        assert server.json["text"] == "full backup of hospital/wards (production) FAILED on db1"
        (attachment,) = server.json["attachments"]
        assert attachment["color"] == "danger"
        fields = {field["title"]: field["value"] for field in attachment["fields"]}
        assert fields == {
            "Job": "daily",
            "Engine": "pg_dump",
            "Where": "/srv/backups, s3://bucket/site",
            "Duration": "1 h 2 min",
            "What": "Cannot write s3://bucket/site/x: password=*** &amp; &lt;more&gt;.",
            "State": "Nothing became visible.",
            "Next": "Make room there.",
        }
        assert send(config, STARTED) == []
        assert len(server.got) == 1
        assert send({"webhook": {**config["webhook"], "on": ["failure"]}}, DONE) == []
        assert len(server.got) == 1


def test_a_watchdog_hears_the_start_and_the_end() -> None:
    with WebServer() as server, serving(server) as port:
        for event in (STARTED, DONE, FAILED):
            assert send({"ping": f"http://127.0.0.1:{port}/ping/uuid/"}, event) == []
        assert [path for _method, path, _body in server.got] == ["/ping/uuid/start", "/ping/uuid", "/ping/uuid/fail"]
        assert b"Size: 5.0 GiB" in server.got[1][2]


@pytest.mark.parametrize(
    ("statuses", "problems", "requests"),
    [
        ((503, 429, 200), [], 3),
        ((500,), ["webhook: 127.0.0.1 answered 500."], 3),
        ((404,), ["webhook: 127.0.0.1 answered 404."], 1),
        ((302,), ["webhook: 127.0.0.1 answered 302."], 1),
    ],
)
def test_what_a_webhook_answers(statuses: tuple[int, ...], problems: list[str], requests: int) -> None:
    with WebServer(*statuses) as server, serving(server) as port:
        assert send({"webhook": f"http://127.0.0.1:{port}/hook-with-secret"}, FAILED) == problems
        assert [method for method, _path, _body in server.got] == ["POST"] * requests


def test_servers_that_do_not_answer_cost_bounded_time() -> None:
    with WebServer(0) as web, serving(web) as web_port, Hanging() as mail, serving(mail) as mail_port:
        nobody = f"http://127.0.0.1:{free_port()}/uuid"
        config = {
            "webhook": f"http://127.0.0.1:{web_port}/hook-with-secret",
            "ping": nobody,
            "email": {"host": "127.0.0.1", "port": mail_port, "to": "ops@example.org", "from": "pg@example.org"},
            "timeout": 0.2,
        }
        problems = send(config, FAILED)
        assert [problem.partition(":")[0] for problem in problems] == ["webhook", "email", "ping"]
        assert "hook-with-secret" not in str(problems)
        # that is said at once, but in no fifth of a second on a machine that is busy
        (problem,) = send({"ping": nobody, "timeout": 30}, FAILED)
        assert problem.startswith("ping: ")
        assert "refused" in problem
        web.let_go.set()


def test_a_server_that_cannot_prove_who_it_is(tls: tuple[ssl.SSLContext, pathlib.Path], tmp_path: pathlib.Path) -> None:
    other = make_ca(tmp_path, "other")
    with WebServer(tls=tls[0]) as server, serving(server) as port:
        for bundle in (str(other), None, str(tmp_path / "absent")):
            webhook = {"url": f"https://localhost:{port}/hook", "ca_bundle": bundle}
            (problem,) = send({"webhook": webhook}, FAILED)
            assert "certificate" in problem.lower() or "cannot be used" in problem
        assert server.got == []


def mails(server: MailServer) -> list[tuple[bool, list[str], t.Any]]:
    return [
        (through_tls, to, email.message_from_string(text, policy=email.policy.default))
        for through_tls, to, text in server.mails
    ]


@pytest.mark.parametrize("how", ["starttls", "tls"])
def test_mail_goes_through_tls_to_everybody(tls: tuple[ssl.SSLContext, pathlib.Path], how: str) -> None:
    context, ca = tls
    login = ("pg", "correct horse")
    with MailServer(tls=context, from_the_start=how == "tls", login=login) as server, serving(server) as port:
        settings = {
            "host": "localhost",
            "port": port,
            "tls": how,
            "ca_bundle": str(ca),
            "from": "pg@example.org",
            "to": ["ops@example.org", "dba@example.org"],
            "username": "pg",
            "password": "correct horse",
        }
        assert send({"email": settings}, FAILED) == []
        ((through_tls, to, mail),) = mails(server)
        assert through_tls
        assert to == ["ops@example.org", "dba@example.org"]
        assert mail["Subject"] == "full backup of hospital/wards (production) FAILED on db1"
        assert mail["Auto-Submitted"] == "auto-generated"
        assert "Next: Make room there." in mail.get_content()
        assert "hunter2" not in str(server.mails)
        (problem,) = send({"email": {**settings, "password": "wrong-secret"}}, FAILED)
        assert problem == "email: localhost answered 535."


def test_mail_is_not_sent_without_the_tls_that_was_asked_for() -> None:
    with MailServer() as server, serving(server) as port:
        settings = {"host": "localhost", "port": port, "from": "pg@example.org", "to": "ops@example.org"}
        assert send({"email": {**settings, "tls": "starttls"}}, FAILED) == [
            "email: localhost does not offer what was asked for (STARTTLS or AUTH)."
        ]
        assert server.mails == []
        assert send({"email": settings}, FAILED) == [], "on this host itself nobody listens in"
        assert len(server.mails) == 1


def test_a_mail_server_that_is_busy_or_knows_nobody() -> None:
    with MailServer(busy=1, refuses=["gone@example.org"]) as server, serving(server) as port:
        settings = {"host": "localhost", "port": port, "from": "pg@example.org", "to": ["ops@example.org"]}
        assert send({"email": settings}, FAILED) == []
        assert server.connections == 2
        both = {**settings, "to": ["gone@example.org", "ops@example.org"]}
        expected = ["email: localhost takes no mail for gone@example.org."]
        assert send({"email": both}, FAILED) == expected
        assert [to for _tls, to, _text in server.mails] == [["ops@example.org"]] * 2
        assert send({"email": {**settings, "to": "gone@example.org"}}, FAILED) == expected
