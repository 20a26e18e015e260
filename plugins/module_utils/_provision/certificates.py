# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Our own certificate authority, for demo and lab: made once, on the controller. PRIVATE to the collection."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import ipaddress
import os
import re
import secrets
import tempfile
import typing as t

from .._clock import Clock, SystemClock, iso, wait_until
from .._command import SystemRunner
from .._errors import DeadlinePassed, HmsError, Refused
from .._files import HeldLock, sync_directory
from .._module import Result
from .._tools.openssl import CertificateInfo, OpenSsl

_FILE_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
_LOCK_TIMEOUT = 60.0


@dataclasses.dataclass(frozen=True)
class CertificateWish:
    """A host's certificate."""

    directory: str
    name: str
    names: tuple[str, ...]
    """DNS names and addresses that it is for."""
    days: int = 825
    renew_days: int = 30
    authority_days: int = 3650
    authority_name: str = "hms.postgres"

    @property
    def authority(self) -> str:
        """The authority's certificate."""
        return os.path.join(self.directory, "ca.crt")

    @property
    def authority_key(self) -> str:
        """The authority's key; it never leaves this machine."""
        return os.path.join(self.directory, "ca.key")

    @property
    def certificate(self) -> str:
        """The host's certificate."""
        return os.path.join(self.directory, self.name + ".crt")

    @property
    def key(self) -> str:
        """The host's key."""
        return os.path.join(self.directory, self.name + ".key")


@dataclasses.dataclass(frozen=True)
class CertificateFacts:
    """What is there; None for a certificate that isn't, or can't be read."""

    authority: CertificateInfo | None = None
    authority_key: bool = False
    authority_fits: bool = True
    """Whether the authority's key and certificate belong together."""
    certificate: CertificateInfo | None = None
    fits: bool = False
    """Whether the host's key and certificate belong together, and the authority signed it."""


@dataclasses.dataclass(frozen=True)
class CertificateAction:
    """One thing to do, and why."""

    id: t.Literal["make_authority", "issue"]
    why: str


def shortest(name: str) -> str:
    """A name as openssl prints it in a certificate, for comparisons."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name.lower()
    if address.version == 4:
        return str(address)
    return ":".join(f"{int(part, 16):x}" for part in address.exploded.split(":"))


def alternative_names(names: t.Sequence[str]) -> str:
    """The value of the extension subjectAltName."""
    parts = []
    for name in dict.fromkeys(names):
        try:
            parts.append(f"IP:{ipaddress.ip_address(name)}")
        except ValueError:
            parts.append(f"DNS:{name}")
    return ",".join(parts)


def check_wish(wish: CertificateWish) -> None:
    """Refuse names that cannot be file names or names of hosts."""
    if not _FILE_NAME.match(wish.name) or wish.name == "ca":
        raise Refused(
            f"{wish.name!r} cannot be a certificate's name.",
            reason="bad_name",
            state="Nothing was touched.",
            next_step="Use letters, digits, dot, dash and underscore, and not ca.",
        )
    bad = [name for name in wish.names if not re.fullmatch(r"[A-Za-z0-9_.:*-]+", name)]
    if bad or not wish.names:
        raise Refused(
            f"A certificate needs names of hosts or addresses; these are none: {bad}.",
            reason="bad_name",
            state="Nothing was touched.",
            next_step="Correct postgresql_tls_names.",
        )


def plan_certificate(
    wish: CertificateWish, facts: CertificateFacts, *, now: datetime.datetime
) -> tuple[list[CertificateAction], list[str]]:
    """What to make, and what the operator should know."""
    check_wish(wish)
    if facts.authority is None:
        issue = CertificateAction("issue", "the authority is new")
        return [CertificateAction("make_authority", "there is none"), issue], []
    if not facts.authority_key or not facts.authority_fits:
        what = "does not belong to its certificate" if facts.authority_key else "is missing"
        raise Refused(
            f"The authority's key {wish.authority_key} {what}.",
            reason="authority_broken",
            state="Nothing was touched.",
            next_step="Put it back from where it is kept. If it is lost, remove ca.crt too: a new authority is made, "
            "and every host gets a new certificate.",
        )
    why = _reason_to_issue(wish, facts, now)
    warnings = []
    if facts.authority.not_after - now < datetime.timedelta(days=wish.days):
        warnings.append(
            f"The certificate authority {wish.authority} expires on {iso(facts.authority.not_after)}, within the life "
            "of a host's certificate. Plan its replacement: hosts that verify must know the new one first."
        )
    return ([CertificateAction("issue", why)] if why else []), warnings


def _reason_to_issue(wish: CertificateWish, facts: CertificateFacts, now: datetime.datetime) -> str:
    found = facts.certificate
    if found is None:
        return "there is none"
    if not facts.fits:
        return "key, certificate and authority do not belong together"
    if found.names != frozenset(shortest(name) for name in wish.names):
        return f"it is for {', '.join(sorted(found.names))}, wanted is {', '.join(sorted(wish.names))}"
    if found.not_after - now < datetime.timedelta(days=wish.renew_days):
        return f"it expires on {iso(found.not_after)}"
    return ""


class CertificateManager:
    """The certificate module's work, with its ports given."""

    def __init__(self, openssl: OpenSsl, clock: Clock) -> None:
        self._openssl = openssl
        self._clock = clock

    def inspect(self, wish: CertificateWish) -> CertificateFacts:
        """What is there."""
        authority = self._read(wish.authority)
        certificate = self._read(wish.certificate)
        fits = False
        if authority and certificate:
            fits = self._key_of(wish.key) == certificate.public_key
            fits = fits and self._openssl.signed_by(wish.certificate, wish.authority)
        return CertificateFacts(
            authority=authority,
            authority_key=os.path.exists(wish.authority_key),
            authority_fits=authority is None or self._key_of(wish.authority_key) == authority.public_key,
            certificate=certificate,
            fits=fits,
        )

    def _read(self, path: str) -> CertificateInfo | None:
        try:
            return self._openssl.inspect(path) if os.path.exists(path) else None
        except HmsError:
            return None

    def _key_of(self, path: str) -> str:
        try:
            return self._openssl.public_key(path) if os.path.exists(path) else ""
        except HmsError:
            return ""

    def ensure(self, wish: CertificateWish, *, check_mode: bool) -> Result:
        """Make what lacks; in check mode only say so."""
        if check_mode:
            return self._result(wish, *plan_certificate(wish, self.inspect(wish), now=self._clock.now()))
        with self._lock(wish):
            actions, warnings = plan_certificate(wish, self.inspect(wish), now=self._clock.now())
            for action in actions:
                if action.id == "make_authority":
                    self._make_authority(wish)
                else:
                    self._issue(wish)
        return self._result(wish, actions, warnings)

    @staticmethod
    def _result(wish: CertificateWish, actions: t.Sequence[CertificateAction], warnings: t.Sequence[str]) -> Result:
        texts = {"make_authority": f"make the authority {wish.authority}", "issue": f"issue {wish.certificate}"}
        return Result(
            changed=bool(actions),
            values={
                "ca_file": wish.authority,
                "certificate_file": wish.certificate,
                "key_file": wish.key,
                "actions": [{"id": action.id, "what": texts[action.id], "why": action.why} for action in actions],
            },
            before="",
            after="".join(f"{texts[action.id]} ({action.why})\n" for action in actions),
            warnings=warnings,
        )

    @contextlib.contextmanager
    def _lock(self, wish: CertificateWish) -> t.Iterator[None]:
        """Hosts ask for their certificates at the same time; the authority is made by one of them."""
        os.makedirs(wish.directory, mode=0o700, exist_ok=True)
        os.chmod(wish.directory, 0o700)
        lock = HeldLock(os.path.join(wish.directory, ".lock"))
        note = {"by": wish.name, "pid": os.getpid()}
        if not wait_until(lambda: lock.acquire(note) is None, clock=self._clock, timeout=_LOCK_TIMEOUT, interval=0.05):
            raise DeadlinePassed(
                f"The folder {wish.directory} is in use by {lock.holder()}.",
                reason="locked",
                state="Nothing was touched.",
                next_step="Wait for that process to end and run again.",
            )
        try:
            yield
        finally:
            lock.release()

    def _make_authority(self, wish: CertificateWish) -> None:
        with tempfile.TemporaryDirectory(dir=wish.directory) as work:
            key, certificate = os.path.join(work, "key"), os.path.join(work, "crt")
            self._openssl.make_authority(
                key=key, certificate=certificate, subject=f"/CN={wish.authority_name} CA", days=wish.authority_days
            )
            self._place(wish.directory, {key: (wish.authority_key, 0o600), certificate: (wish.authority, 0o644)})

    def _issue(self, wish: CertificateWish) -> None:
        with tempfile.TemporaryDirectory(dir=wish.directory) as work:
            key, certificate = os.path.join(work, "key"), os.path.join(work, "crt")
            request, extensions = os.path.join(work, "csr"), os.path.join(work, "ext")
            self._openssl.make_request(key=key, request=request, subject=f"/CN={wish.name[:64]}")
            with open(extensions, "w", encoding="ascii") as target:
                target.write(
                    f"subjectAltName={alternative_names(wish.names)}\n"
                    "basicConstraints=critical,CA:FALSE\n"
                    "keyUsage=critical,digitalSignature\n"
                    "extendedKeyUsage=serverAuth,clientAuth\n"
                )
            self._openssl.sign(
                request=request,
                certificate=certificate,
                authority=wish.authority,
                authority_key=wish.authority_key,
                extensions=extensions,
                serial="0x" + secrets.token_hex(16),
                days=wish.days,
            )
            self._place(wish.directory, {key: (wish.key, 0o600), certificate: (wish.certificate, 0o644)})

    @staticmethod
    def _place(directory: str, files: t.Mapping[str, tuple[str, int]]) -> None:
        """Put finished files in their places: the key first, so that a certificate never stands without one."""
        for source, (target, mode) in files.items():
            os.chmod(source, mode)
            handle = os.open(source, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            os.replace(source, target)
        sync_directory(directory)


def certificate_manager() -> CertificateManager:
    """The manager for this machine."""
    return CertificateManager(OpenSsl(SystemRunner()), SystemClock())
