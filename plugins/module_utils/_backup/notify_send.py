# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The three ways in which a message leaves the host. PRIVATE to the collection.

URLs are secrets (whoever knows a webhook may post there), so no error shows more of one than its host.
"""

from __future__ import annotations

import dataclasses
import email.message
import email.utils
import http.client
import json
import smtplib
import socket
import ssl
import typing as t
import urllib.error
import urllib.parse
import urllib.request

_LOCAL = ("localhost", "127.0.0.1", "::1")
_ANSWER = 64 * 1024


@dataclasses.dataclass(frozen=True)
class Web:
    """A URL that takes POSTs."""

    url: str = dataclasses.field(repr=False)
    on: tuple[str, ...] = ("success", "failure")
    ca_bundle: str | None = None


@dataclasses.dataclass(frozen=True)
class Email:
    """A mail server and who is written to."""

    host: str
    to: tuple[str, ...]
    port: int | None = None
    sender: str = ""
    tls: str = "auto"
    """auto: STARTTLS, and nothing on this host itself; certificates are always checked."""
    username: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)
    ca_bundle: str | None = None
    on: tuple[str, ...] = ("success", "failure")

    @property
    def is_local(self) -> bool:
        """Whether it doesn't leave this machine."""
        return self.host in _LOCAL

    @property
    def security(self) -> str:
        """starttls, tls or none."""
        if self.tls != "auto":
            return self.tls
        return "none" if self.is_local else "starttls"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        usual = {"starttls": 587, "tls": 465}.get(self.security, 25)
        return self.host, int(self.port or usual)


class NotDelivered(Exception):
    """It did not get there; `final` when trying again would change nothing."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A POST that is redirected arrives as a GET, and looks delivered."""

    def redirect_request(self, *_arguments: t.Any, **_named: t.Any) -> None:
        return None


def is_web_url(url: t.Any) -> bool:
    """Whether it is one that we may open: urllib would take file: as well."""
    if not isinstance(url, str):
        return False
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _context(ca_bundle: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_bundle)
    except (OSError, ssl.SSLError) as error:
        raise NotDelivered(f"the CA bundle {ca_bundle} cannot be used: {error}.", final=True) from error


def _post(web: Web, url: str, data: bytes, content_type: str, *, timeout: float) -> None:
    host = urllib.parse.urlsplit(url).hostname or "?"
    request = urllib.request.Request(url, data=data, method="POST")  # its scheme was looked at with the settings
    request.add_header("Content-Type", content_type)
    request.add_header("User-Agent", "hms-postgres")
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=_context(web.ca_bundle)))
    try:
        with opener.open(request, timeout=timeout) as answer:
            answer.read(_ANSWER)
    except urllib.error.HTTPError as error:
        error.close()
        final = error.code not in (408, 425, 429) and error.code < 500
        raise NotDelivered(f"{host} answered {error.code}.", final=final) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        # a URLError holds the URL's error, an error of http.client may hold the path
        reason = getattr(error, "reason", error)
        said = str(reason) if isinstance(reason, (OSError, str)) else type(reason).__name__
        certificate = isinstance(reason, ssl.SSLCertVerificationError)
        raise NotDelivered(f"{host} was not reached: {said}.", final=certificate) from None


def post_json(web: Web, data: t.Any, *, timeout: float) -> None:
    """POST it as JSON."""
    _post(web, web.url, json.dumps(data).encode(), "application/json", timeout=timeout)


def ping(web: Web, suffix: str, text: str, *, timeout: float) -> None:
    """Tell a watchdog, which raises the alarm itself when it hears nothing; the text goes with it."""
    parts = urllib.parse.urlsplit(web.url)
    url = urllib.parse.urlunsplit(parts._replace(path=parts.path.rstrip("/") + suffix))
    _post(web, url, text.encode()[:10_000], "text/plain; charset=utf-8", timeout=timeout)


def mail(settings: Email, subject: str, text: str, *, timeout: float) -> None:
    """Send a mail to everybody."""
    message = email.message.EmailMessage()
    message["Subject"] = subject
    message["From"] = settings.sender or f"hms-postgres@{socket.getfqdn()}"
    message["To"] = ", ".join(settings.to)
    message["Date"] = email.utils.formatdate(localtime=False)
    message["Message-ID"] = email.utils.make_msgid(domain=message["From"].rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    host = settings.host
    try:
        with _connect(settings, timeout) as server:
            refused = server.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        raise NotDelivered(f"{host} takes no mail for {', '.join(sorted(error.recipients))}.", final=True) from None
    except smtplib.SMTPNotSupportedError:
        raise NotDelivered(f"{host} does not offer what was asked for (STARTTLS or AUTH).", final=True) from None
    except smtplib.SMTPResponseException as error:
        # the server's text may quote what we sent
        raise NotDelivered(f"{host} answered {error.smtp_code}.", final=500 <= error.smtp_code < 600) from None
    except (OSError, smtplib.SMTPException) as error:
        certificate = isinstance(error, ssl.SSLCertVerificationError)
        raise NotDelivered(f"{host} was not reached: {error}.", final=certificate) from None
    if refused:
        raise NotDelivered(f"{host} takes no mail for {', '.join(sorted(refused))}.", final=True)


def _connect(settings: Email, timeout: float) -> smtplib.SMTP:
    server: smtplib.SMTP
    if settings.security == "tls":
        server = smtplib.SMTP_SSL(*settings.address, timeout=timeout, context=_context(settings.ca_bundle))
    else:
        server = smtplib.SMTP(*settings.address, timeout=timeout)
    try:
        if settings.security == "starttls":
            server.starttls(context=_context(settings.ca_bundle))
        if settings.username:
            server.login(settings.username, settings.password or "")
    except BaseException:
        server.close()
        raise
    return server
