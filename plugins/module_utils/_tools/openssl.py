# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""openssl: keys, certificates and what stands in them. PRIVATE to the collection."""

from __future__ import annotations

import datetime
import re
import typing as t

from .._command import CommandRunner, find_program

TIMEOUT = 30.0
_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_NAME = re.compile(r"(DNS|IP Address):([^,\s]+)")


class CertificateInfo(t.NamedTuple):
    """What we look at in a certificate."""

    not_after: datetime.datetime
    names: frozenset[str]
    """The subject's alternative names, addresses in their shortest form."""
    public_key: str


def parse_end(text: str) -> datetime.datetime:
    """``notAfter=Nov 22 16:00:00 2036 GMT``, independent of the locale's names of months."""
    value = text.partition("=")[2].split()
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    hour, minute, second = (int(part) for part in value[2].split(":"))
    return datetime.datetime(
        int(value[3]),
        months.index(value[0]) + 1,
        int(value[1]),
        hour,
        minute,
        second,
        tzinfo=datetime.timezone.utc,
    )


def parse_names(text: str) -> frozenset[str]:
    """The names in the output of ``-ext subjectAltName``."""
    return frozenset(match.group(2).lower() for match in _NAME.finditer(text))


class OpenSsl:
    """The program."""

    def __init__(self, runner: CommandRunner) -> None:
        self._runner = runner
        self._program = find_program("openssl", needed_for="keys and certificates of our own authority")

    def _run(self, what: str, *argv: str) -> str:
        return self._runner.run([self._program, *argv], timeout=TIMEOUT).check(what).stdout

    def make_authority(self, *, key: str, certificate: str, subject: str, days: int) -> None:
        """A new key and a certificate by which it signs others."""
        self._run(
            "Making the certificate authority",
            "req",
            "-x509",
            *_CURVE,
            "-sha256",
            "-days",
            str(days),
            "-subj",
            subject,
            "-addext",
            "basicConstraints=critical,CA:TRUE,pathlen:0",
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
            "-keyout",
            key,
            "-out",
            certificate,
        )

    def make_request(self, *, key: str, request: str, subject: str) -> None:
        """A new key and a request for its certificate."""
        self._run(
            "Making a certificate request", "req", "-new", *_CURVE, "-subj", subject, "-keyout", key, "-out", request
        )

    def sign(
        self,
        *,
        request: str,
        certificate: str,
        authority: str,
        authority_key: str,
        extensions: str,
        serial: str,
        days: int,
    ) -> None:
        """The certificate for a request, with extensions from a file."""
        self._run(
            "Signing a certificate",
            "x509",
            "-req",
            "-sha256",
            "-in",
            request,
            "-CA",
            authority,
            "-CAkey",
            authority_key,
            "-set_serial",
            serial,
            "-days",
            str(days),
            "-extfile",
            extensions,
            "-out",
            certificate,
        )

    def inspect(self, certificate: str) -> CertificateInfo:
        """What stands in a certificate."""
        what = f"Reading the certificate {certificate}"
        return CertificateInfo(
            not_after=parse_end(self._run(what, "x509", "-in", certificate, "-noout", "-enddate")),
            names=parse_names(self._run(what, "x509", "-in", certificate, "-noout", "-ext", "subjectAltName")),
            public_key=self._run(what, "x509", "-in", certificate, "-noout", "-pubkey"),
        )

    def public_key(self, key: str) -> str:
        """The public half of a private key."""
        return self._run(f"Reading the key {key}", "pkey", "-in", key, "-pubout")

    def signed_by(self, certificate: str, authority: str) -> bool:
        """Whether the authority signed this certificate."""
        argv = [self._program, "verify", "-no_check_time", "-CAfile", authority, certificate]
        return self._runner.run(argv, timeout=TIMEOUT).rc == 0
