# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is said about a backup, and settings that say where; what servers make of it is tested with real ones."""

from __future__ import annotations

import threading
import types
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._backup import notify, notify_send
from ansible_collections.hms.postgres.plugins.module_utils._backup.notify import (
    Event,
    Notify,
    body,
    headline,
    human_bytes,
    human_seconds,
    notify_from,
    redact,
    send,
    slack,
)
from ansible_collections.hms.postgres.plugins.module_utils._backup.notify_send import Email, NotDelivered, Web
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError

MAIL = {"host": "mail.example.org", "to": ["ops@example.org"]}


def test_headlines() -> None:
    assert headline(Event("start", "backup", "c", "h")) == "backup of c started on h"
    event = Event("success", "backup", "c", "h", database="d", type="full", environment="staging")
    assert headline(event) == "full backup of c/d (staging) succeeded on h"
    assert headline(Event("failure", "freshness\ncheck", "c", "h")) == "freshness check of c FAILED on h"


def test_the_body_says_what_there_is() -> None:
    event = Event(
        kind="success",
        what="backup",
        cluster="c",
        host="h",
        id="i",
        bytes=0,
        seconds=59.94,
        verified=False,
        message="late",
        warnings=("one", "two"),
    )
    assert body(event).splitlines() == [
        "backup of c succeeded on h",
        "",
        "Backup: i",
        "Size: 0 bytes",
        "Duration: 59.9 s",
        "Verified: no",
        "Remark: late",
        "Warnings: one; two",
    ]
    assert slack(event)["attachments"][0]["color"] == "good"


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (5 * 1024**5, "5120.0 TiB")]
)
def test_sizes(count: int, said: str) -> None:
    assert human_bytes(count) == said


@pytest.mark.parametrize(("seconds", "said"), [(0.04, "0.0 s"), (60, "1 min 0 s"), (90061, "25 h 1 min")])
def test_durations(seconds: float, said: str) -> None:
    assert human_seconds(seconds) == said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("password=hunter2 rest", "password=*** rest"),
        ("PGPASSWORD: x", "PGPASSWORD: x"),
        ('{"secret_access_key": "a b"}', '{"secret_access_key": ***}'),
        ("passphrase = 'a b' x", "passphrase = *** x"),
        ("at postgresql://me:pw@host/db", "at postgresql://***@host/db"),
        ("s3://bucket/key and https://host/x", "s3://bucket/key and https://host/x"),
        ("x" * 1000, "x" * 899 + "…"),
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_settings() -> None:
    assert notify_from(None) == Notify()
    assert notify_from({"webhook": None, "email": None}) == Notify()
    given = notify_from(
        {
            "webhook": {"url": "https://hooks.example.org/x", "on": ["failure"]},
            "ping": {"url": "https://ping.example.org/uuid", "on": ["failure"]},
            "email": {**MAIL, "from": "pg@example.org", "tls": None},
            "timeout": 3,
        }
    )
    assert given.webhook == Web("https://hooks.example.org/x", ("failure",))
    assert given.ping == Web("https://ping.example.org/uuid", ("success", "failure", "start"))
    assert given.email == Email("mail.example.org", ("ops@example.org",), sender="pg@example.org")
    assert given.email.address == ("mail.example.org", 587)
    assert Email("h", (), tls="tls").address == ("h", 465)
    assert Email("localhost", ()).address == ("localhost", 25)
    assert "hooks" not in repr(given)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"sms": {}}, "no setting sms"),
        ({"timeout": 0}, "timeout"),
        ({"webhook": ["x"]}, "webhook has to be a mapping"),
        ({"webhook": "file:///etc/passwd"}, "webhook.url has to be an http or https URL"),
        ({"ping": {"ca_bundle": "x"}}, "ping.url has to be"),
        ({"webhook": {"url": "https://h", "to": "x"}}, "webhook has no setting to"),
        ({"webhook": {"url": "https://h", "on": "failure"}}, "on is a list of"),
        ({"webhook": {"url": "https://h", "on": ["always"]}}, "on is a list of"),
        ({"email": {"host": "h"}}, "needs host and to"),
        ({"email": {**MAIL, "to": "a b@c"}}, "plain mail addresses"),
        ({"email": {**MAIL, "from": "me\nBcc: x@y"}}, "plain mail addresses"),
        ({"email": {**MAIL, "tls": "yes"}}, "tls is auto"),
        ({"email": {**MAIL, "tls": "none", "username": "u"}}, "without TLS"),
    ],
)
def test_what_is_wrong_is_named(data: t.Any, said: str) -> None:
    with pytest.raises(HmsError, match=said) as caught:
        notify_from(data)
    assert caught.value.reason == "bad_config"
    (problem,) = send(data, Event("failure", "backup", "c", "h"))
    assert problem.startswith(caught.value.message)


def test_nothing_is_ever_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "_PAUSE", 0.0)
    tries: list[str] = []
    hanging = threading.Event()

    class Prompt(threading.Thread):
        """All have answered that ever will before the time for answers begins to pass."""

        def __init__(self, *, args: tuple[str, t.Callable[[], None]], **more: t.Any) -> None:
            super().__init__(args=args, **more)
            self.answers = args[0] != "ping"

        def start(self) -> None:
            super().start()
            self.join(60 if self.answers else 0)

    def hook(*_arguments: t.Any, **_named: t.Any) -> None:
        tries.append("webhook")
        raise RuntimeError("https://hooks.example.org/secret")

    def mail(*_arguments: t.Any, **_named: t.Any) -> None:
        tries.append("email")
        raise NotDelivered("busy.")

    def ping(*_arguments: t.Any, **_named: t.Any) -> None:
        hanging.wait(60)

    monkeypatch.setattr(notify, "threading", types.SimpleNamespace(Thread=Prompt, Lock=threading.Lock))
    monkeypatch.setattr(notify_send, "post_json", hook)
    monkeypatch.setattr(notify_send, "mail", mail)
    monkeypatch.setattr(notify_send, "ping", ping)
    config = {"webhook": "https://h/x", "email": MAIL, "ping": "https://h/y", "timeout": 0.05}
    problems = send(config, Event("failure", "backup", "c", "h"))
    hanging.set()
    assert problems == [
        "webhook: RuntimeError while it was sent.",
        "email: busy.",
        "ping: no answer within 0.15 seconds.",
    ]
    assert sorted(tries) == ["email"] * 3 + ["webhook"]
