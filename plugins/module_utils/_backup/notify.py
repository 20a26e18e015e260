# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tells people and watchdogs how a backup went: webhook, e-mail, ping URL. PRIVATE to the collection.

The settings, ``notify`` in the host's ``backup.json``; each part may be left out::

    webhook: {url: …, on: [success, failure], ca_bundle: …}          Slack's JSON, which others take as well
    email:   {host: …, port: 587, tls: starttls | tls | none, to: […], from: …, username: …, password: …, on: […]}
    ping:    {url: …, ca_bundle: …}                                   <url>/start, <url>, <url>/fail
    timeout: 10                                                       seconds for each

Nothing here raises: a message that can't be delivered doesn't make a backup worse. It is told as a problem.
"""

from __future__ import annotations

import dataclasses
import re
import threading
import time
import typing as t

from .._errors import HmsError
from . import notify_send
from .notify_send import Email, NotDelivered, Web

Kind = t.Literal["start", "success", "failure"]

_ON = ("success", "failure", "start")
_ATTEMPTS = 3
_PAUSE = 1.0
_LONGEST = 900
_SECRETS = re.compile(
    r"(?P<key>\b(?:password|passwd|passphrase|secret|token|secret_access_key|api_?key)\b[\"']?\s*[=:]\s*)"
    r"(?:\"[^\"]*\"|'[^']*'|\S+)|(?P<scheme>\b[a-z][a-z0-9+.-]*://)[^/\s@]+@",
    re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True)
class Event:
    """What happened, for people.

    Attributes:
        kind: start, success or failure.
        what: the operation in words: ``backup``, ``verification``, ``freshness check``.
        where: the stores' names.
        message, state, next_step: an error's, for a failure; for a success `message` may hold a remark.
    """

    kind: Kind
    what: str
    cluster: str
    host: str
    environment: str = ""
    database: str = ""
    job: str = ""
    id: str = ""
    type: str = ""
    engine: str = ""
    where: t.Sequence[str] = ()
    bytes: int | None = None
    seconds: float | None = None
    verified: bool | None = None
    message: str = ""
    state: str = ""
    next_step: str = ""
    warnings: t.Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Notify:
    """Where to say it."""

    webhook: Web | None = None
    email: Email | None = None
    ping: Web | None = None
    timeout: float = 10.0


def redact(text: str) -> str:
    """A text without what looks like a secret, and not longer than anybody reads."""
    clean = _SECRETS.sub(lambda match: f"{match['key']}***" if match["key"] else f"{match['scheme']}***@", text)
    return clean if len(clean) <= _LONGEST else clean[: _LONGEST - 1] + "…"


def human_bytes(count: int) -> str:
    """A size as people read it."""
    size, units = float(count), ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{count} bytes" if units[0] == "bytes" else f"{size:.1f} {units[0]}"


def human_seconds(seconds: float) -> str:
    """A duration as people read it."""
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"


def headline(event: Event) -> str:
    """One line: what, of what, how it went."""
    said = {"start": "started", "success": "succeeded", "failure": "FAILED"}[event.kind]
    of = f"{event.cluster}/{event.database}" if event.database else event.cluster
    kind = f"{event.type} " if event.type else ""
    place = f" ({event.environment})" if event.environment else ""
    return redact(" ".join(f"{kind}{event.what} of {of}{place} {said} on {event.host}".split()))


def facts(event: Event) -> list[tuple[str, str]]:
    """What there is to say about it, by name, in order."""
    values = [
        ("Job", event.job),
        ("Backup", event.id),
        ("Engine", event.engine),
        ("Where", ", ".join(event.where)),
        ("Size", "" if event.bytes is None else human_bytes(event.bytes)),
        ("Duration", "" if event.seconds is None else human_seconds(event.seconds)),
        ("Verified", {True: "yes", False: "no", None: ""}[event.verified]),
        ("What" if event.kind == "failure" else "Remark", event.message),
        ("State", event.state),
        ("Next", event.next_step),
        ("Warnings", "; ".join(event.warnings)),
    ]
    return [(name, redact(value)) for name, value in values if value]


def body(event: Event) -> str:
    """The whole as text."""
    return "\n".join([headline(event), "", *(f"{name}: {value}" for name, value in facts(event))]) + "\n"


def slack(event: Event) -> dict[str, t.Any]:
    """The whole as Slack's JSON; Mattermost, Rocket.Chat and Discord (``/slack``) take it as well."""

    def escape(text: str) -> str:
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

    color = {"start": "#888888", "success": "good", "failure": "danger"}[event.kind]
    fields = [{"title": name, "value": escape(value), "short": len(value) < 40} for name, value in facts(event)]
    text = escape(headline(event))
    return {"text": text, "attachments": [{"fallback": text, "color": color, "fields": fields}]}


# settings


def _bad(message: str) -> HmsError:
    return HmsError(message, reason="bad_config", state="Nothing was touched.", next_step="Correct notify.")


def notify_from(data: t.Mapping[str, t.Any] | None) -> Notify:
    """The settings from plain data; raises `HmsError` with reason ``bad_config`` that names what is wrong."""
    given = {key: value for key, value in (data or {}).items() if value is not None}
    unknown = sorted(set(given) - {"webhook", "email", "ping", "timeout"})
    if unknown:
        raise _bad(f"notify has no setting {', '.join(unknown)}; there are webhook, email, ping and timeout.")
    timeout = given.get("timeout", 10.0)
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or timeout <= 0:
        raise _bad("notify.timeout has to be a number of seconds above 0.")
    return Notify(
        webhook=_web(given["webhook"], "webhook") if given.get("webhook") else None,
        email=_email(given["email"]) if given.get("email") else None,
        ping=_web(given["ping"], "ping") if given.get("ping") else None,
        timeout=float(timeout),
    )


def _part(data: t.Any, name: str, kind: type[t.Any]) -> dict[str, t.Any]:
    if not isinstance(data, t.Mapping):
        raise _bad(f"notify.{name} has to be a mapping.")
    values = {("sender" if key == "from" else str(key)): value for key, value in data.items() if value is not None}
    known = {field.name for field in dataclasses.fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise _bad(f"notify.{name} has no setting {', '.join(unknown)}.")
    on = values.get("on", list(_ON[:2]))
    if not isinstance(on, (list, tuple)) or not set(on) <= set(_ON):
        raise _bad(f"notify.{name}.on is a list of {', '.join(_ON)}.")
    return {**values, "on": tuple(on)}


def _web(data: t.Any, name: str) -> Web:
    values = _part({"url": data} if isinstance(data, str) else data, name, Web)
    if not notify_send.is_web_url(values.get("url")):
        # not shown: such a URL is a secret itself
        raise _bad(f"notify.{name}.url has to be an http or https URL.")
    return Web(**{**values, "on": _ON} if name == "ping" else values)


def _email(data: t.Any) -> Email:
    values = _part(data, "email", Email)
    to = values.get("to", ())
    values["to"] = (to,) if isinstance(to, str) else tuple(to)
    if not values.get("host") or not values["to"]:
        raise _bad("notify.email needs host and to.")
    addresses = [*values["to"], values.get("sender", "a@b")]
    if not all(isinstance(address, str) and re.fullmatch(r"[^\s,;<>@]+@[^\s,;<>@]+", address) for address in addresses):
        raise _bad("notify.email: to and from have to be plain mail addresses.")
    email = Email(**values)
    if email.tls not in ("auto", "starttls", "tls", "none"):
        raise _bad("notify.email.tls is auto, starttls, tls or none.")
    if email.username and email.security == "none" and not email.is_local:
        raise _bad("notify.email: a password is not sent to another host without TLS.")
    return email


# sending


def send(config: Notify | t.Mapping[str, t.Any] | None, event: Event) -> list[str]:
    """Say it everywhere at once; what could not be said, and why. Never raises, and ends within its time."""
    try:
        notify = config if isinstance(config, Notify) else notify_from(config)
    except HmsError as error:
        return [error.full_text()]
    jobs = _jobs(notify, event)
    problems: dict[str, str] = {name: f"{name}: no answer within {_total(notify):g} seconds." for name in jobs}
    lock = threading.Lock()

    def work(name: str, job: t.Callable[[], None]) -> None:
        problem = _try(job)
        with lock:
            problems[name] = f"{name}: {problem}" if problem else ""

    threads = [threading.Thread(target=work, args=item, daemon=True) for item in jobs.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _total(notify)
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    with lock:
        return [problem for problem in problems.values() if problem]


def _total(notify: Notify) -> float:
    """Seconds for everything, all attempts included."""
    return _ATTEMPTS * (notify.timeout + _PAUSE)


def _jobs(notify: Notify, event: Event) -> dict[str, t.Callable[[], None]]:
    jobs: dict[str, t.Callable[[], None]] = {}
    webhook, email, ping, timeout = notify.webhook, notify.email, notify.ping, notify.timeout
    if webhook and event.kind in webhook.on:
        jobs["webhook"] = lambda: notify_send.post_json(webhook, slack(event), timeout=timeout)
    if email and event.kind in email.on:
        jobs["email"] = lambda: notify_send.mail(email, headline(event), body(event), timeout=timeout)
    if ping:
        suffix = {"start": "/start", "success": "", "failure": "/fail"}[event.kind]
        jobs["ping"] = lambda: notify_send.ping(ping, suffix, body(event), timeout=timeout)
    return jobs


def _try(job: t.Callable[[], None]) -> str:
    """Do it, again when it may help; the problem, '' for none."""
    problem = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE)
        try:
            job()
        except NotDelivered as error:
            problem = str(error)
            if error.final:
                break
        # A notification that fails in a way nobody thought of is told as one; the backup that it is about stands.
        except Exception as error:  # noqa: BLE001  a defect has any type
            return f"{type(error).__name__} while it was sent."
        else:
            return ""
    return problem
