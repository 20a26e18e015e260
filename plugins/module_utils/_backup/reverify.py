# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups that exist are proven again: chosen, read or restored, the result written beside them. PRIVATE.

What a later verification finds stands in the catalog from then on: one that fails takes a backup out of everything
that counts verified ones.
"""

from __future__ import annotations

import dataclasses
import functools
import time
import typing as t

from .._artifact import pgbackrest_settings, pgbackrest_verify
from .._artifact.catalog import Entry, Problem, note_verification, read_manifest
from .._artifact.clients import find_clients
from .._artifact.keys import Keyring, reading_keyring
from .._artifact.manifest import Manifest, Verification
from .._artifact.model import Encryption
from .._artifact.options import connection_from
from .._artifact.running import backup_lock
from .._artifact.sources import KINDS, Sources, look, of_params
from .._artifact.staging import look_at
from .._artifact.verify import verify_artifact
from .._clock import Clock, iso
from .._command import CommandRunner
from .._errors import DeadlinePassed, HmsError, Refused
from .._files import HeldLock
from .._module import Result
from .._postgres import ConnectionParams, connect
from .._store.model import ObjectStore
from .._tools.pg_restore import PgRestore
from . import policy as policies
from .deep_verify import DeepVerifier
from .facts import open_source, read_source
from .policy_sources import encryptions_of, of_policy
from .wishes import DEFAULT_STATE_DIRECTORY

Which = t.Literal["newest", "unverified", "all"]


@dataclasses.dataclass(frozen=True)
class Order:
    """What is to be proven, and how.

    Attributes:
        id: one backup; '' for those that `which` says.
        which: the newest of each kind, those that aren't verified, or all.
        level: read or deep.
        connection: the server for scratch databases (deep).
        timeout: seconds for the whole.
        staging_dir: where backups in the directory format are unpacked for a deep proof.
    """

    sources: Sources
    encryption: Encryption
    connection: ConnectionParams
    os_user: str | None
    state_dir: str
    id: str = ""
    which: Which = "newest"
    level: t.Literal["read", "deep"] = "read"
    timeout: float = 24 * 3600.0
    staging_dir: str | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came out for one copy of one backup."""

    id: str
    database: str
    engine: str
    type: str
    store: str
    verification: Verification

    def as_dict(self) -> dict[str, t.Any]:
        """As plain data."""
        return dataclasses.asdict(self)

    def told(self) -> str:
        """One line for people."""
        found = self.verification
        if not found.ok:
            return f"{self.id} in {self.store} is BAD: {'; '.join(found.problems)}"
        how = "restored and compared" if found.level == "deep" else "read to its end"
        if found.partial:
            return (
                f"{self.id} in {self.store}: the stored bytes are as they were written; not looked at: {found.partial}"
            )
        return f"{self.id} in {self.store} holds ({how}, {found.seconds:.1f} s)"


def order_from(params: t.Mapping[str, t.Any]) -> Order:
    """The order that a module's arguments amount to; what isn't given comes from the host's ``backup.json``."""
    given = {key: value for key, value in params.items() if value is not None}
    if params.get("config_directory"):
        policy = policies.load(params["config_directory"])
        sources = of_policy(policy, params.get("database"))
        known = encryptions_of(policy)
        places = [job.wish.staging_dir for job in policy.jobs if job.wish.staging_dir]
        given = {**policy.base, **given}
    else:
        sources, known, places = of_params(params), [], []
    kinds = params.get("stores") or KINDS
    return Order(
        sources.only(kinds),
        _encryption(params.get("encryption") or {}, known),
        connection_from(given, given.get("database") or "postgres"),
        given.get("os_user", "postgres") or None,
        given.get("state_dir") or DEFAULT_STATE_DIRECTORY.format(cluster=sources.cluster),
        id=params.get("id") or "",
        which=params.get("which") or "newest",
        level=params.get("level") or "read",
        timeout=params.get("timeout") or Order.timeout,
        staging_dir=given.get("staging_dir") or next(iter(places), None),
    )


def _encryption(given: t.Mapping[str, t.Any], known: t.Iterable[Encryption]) -> Encryption:
    """What opens backups: what was given, or a passphrase of the host's; never the keys that it encrypts to."""
    own: dict[str, t.Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in given.items() if value
    }
    if own:
        return Encryption(**own)
    for one in known:
        if one.method == "passphrase":
            return Encryption(passphrase=one.passphrase, passphrase_file=one.passphrase_file)
    return Encryption()


def choose(entries: t.Sequence[Entry], order: Order) -> list[Entry]:
    """The copies that the order means, newest first. Raises `Refused` where there are none of them."""
    newest_first = list(reversed(entries))
    if order.id:
        chosen = [entry for entry in newest_first if entry.id == order.id]
        if not chosen:
            raise _nothing(f"There is no backup {order.id}.", "Look at playbooks/backups.yml for what there is.")
        return chosen
    if not newest_first:
        raise _nothing("There is no backup.", "Make one: playbooks/backup.yml.")
    if order.which == "all":
        return newest_first
    if order.which == "unverified":
        return [entry for entry in newest_first if not entry.verified]
    newest: dict[tuple[str, str, str], str] = {}
    for entry in newest_first:
        newest.setdefault((entry.manifest.database, entry.manifest.engine, entry.manifest.type), entry.id)
    return [entry for entry in newest_first if entry.id in newest.values()]


def _nothing(message: str, next_step: str) -> Refused:
    return Refused(message, reason="no_backup", phase="look", state="Nothing was touched.", next_step=next_step)


class Prover:
    """Carries an order out."""

    def __init__(self, order: Order, *, runner: CommandRunner, clock: Clock, say: t.Callable[[str], None]) -> None:
        self._order = order
        self._runner = runner
        self._clock = clock
        self._say = say
        self._deadline = time.monotonic() + order.timeout
        self._stores = order.sources.stores()
        self.outcomes: list[Outcome] = []
        self.repository_problems: list[str] = []

    def look(self, *, write_cache: bool) -> tuple[list[Entry], tuple[Problem, ...]]:
        """What the order means, and what is wrong with the catalog."""
        seen = look(self._order.sources, runner=self._runner, write_cache=write_cache, windows=False)
        return choose(seen.catalog.entries, self._order), seen.catalog.problems

    def prove(self, chosen: t.Sequence[Entry]) -> None:
        """Prove every copy; each result is written at once, so that a kill loses only the one at hand."""
        dumps = [entry for entry in chosen if entry.manifest.engine != "pgbackrest"]
        with reading_keyring(self._order.encryption, runner=self._runner) as ring:
            self._refuse_half_a_proof(dumps, ring)
            for entry in dumps:
                self._prove_dump(entry, ring)
        self._prove_physical([entry for entry in chosen if entry.manifest.engine == "pgbackrest"])

    def _refuse_half_a_proof(self, dumps: t.Sequence[Entry], ring: Keyring) -> None:
        closed = [entry.id for entry in dumps if not ring.can_read(entry.manifest.encryption)]
        if self._order.level == "deep" and closed:
            raise Refused(
                f"{closed[0]} can't be restored here: it is encrypted, and this host has no key that opens it.",
                reason="no_key",
                phase="look",
                state="Nothing was touched.",
                next_step="Give the private key (key_files) or the passphrase, or verify at level read.",
            )
        packed = [entry.id for entry in dumps if entry.manifest.format == "directory"]
        if self._order.level == "deep" and packed:
            self._refuse_without_staging(packed[0])

    def _refuse_without_staging(self, identifier: str) -> None:
        directory, os_user = self._order.staging_dir, self._order.os_user
        seen = look_at(directory, os_user, "") if directory else None
        if seen is not None and seen.problem is not None:
            raise seen.problem
        if seen is None:
            raise Refused(
                f"{identifier} is in the directory format, which is unpacked to a disk before it is restored, "
                "unencrypted; no staging_dir is given.",
                reason="staging_missing",
                phase="look",
                state="Nothing was touched.",
                next_step=f"Give staging_dir, a folder of mode 0700 that is {os_user or 'ours'}, or use level read.",
            )

    def _take(self, entry: Entry, verification: Verification) -> None:
        made = entry.manifest
        outcome = Outcome(entry.id, made.database, made.engine, made.type, entry.store, verification)
        self.outcomes.append(outcome)
        self._say(outcome.told())

    def _prove_dump(self, entry: Entry, ring: Keyring) -> None:
        store = self._stores[entry.store]
        manifest = read_manifest(store, entry)
        os_user, major = self._order.os_user, int(manifest.server.get("version_num") or 0) // 10000
        program = PgRestore(find_clients(major, self._runner).pg_restore.path, os_user=os_user)
        check = verify_artifact(
            store, manifest, ring, pg_restore=program, deadline=self._deadline, clock=self._clock, os_user=os_user
        )
        found = check.verification
        if not found.ok:
            # a store that doesn't answer says nothing about what is in it; then this raises, and nothing is written
            store.check()
        if self._order.level == "deep" and found.ok:
            found = self._restore(store, manifest, ring, found)
        note_verification(store, entry, manifest, found)
        self._take(entry, found)

    def _restore(self, store: ObjectStore, manifest: Manifest, ring: Keyring, read: Verification) -> Verification:
        """The proof by restoring. The backup's lock is held, for the scratch database's name is the backup's."""
        lock = HeldLock(backup_lock(self._order.state_dir, manifest.database))
        holder = lock.acquire({"id": manifest.id, "by": "backup_verify", "since": iso(self._clock.now())})
        if holder is not None:
            raise Refused(
                f"A backup of {manifest.database} is running ({holder.get('id', 'unknown')}).",
                reason="busy",
                phase="lock",
                state=f"{len(self.outcomes)} backups were verified before.",
                next_step="Verify when it is done.",
            )
        begun = time.monotonic()
        try:
            deep = self._deep(store, manifest, ring)
        finally:
            lock.release()
        return dataclasses.replace(
            read,
            level="deep",
            ok=not deep[0],
            at=iso(self._clock.now()),
            seconds=round(read.seconds + time.monotonic() - begun, 3),
            problems=deep[0],
            rows_compared=deep[1],
        )

    def _deep(self, store: ObjectStore, manifest: Manifest, ring: Keyring) -> tuple[tuple[str, ...], int]:
        connecting = functools.partial(connect, os_user=self._order.os_user)
        params = dataclasses.replace(self._order.connection, dbname=manifest.database)
        session = open_source(params, connecting)
        try:
            source = read_source(session)
        finally:
            session.close()
        verifier = DeepVerifier(
            connection=params,
            connect=connecting,
            clients=find_clients(source.server.major, self._runner),
            os_user=self._order.os_user,
            superuser=source.role.superuser,
            staging_dir=self._order.staging_dir,
        )
        found = verifier.restore_and_compare(
            store, manifest, ring, database=source.database, major=source.server.major, deadline=self._deadline
        )
        return found.problems, found.rows_compared

    def _prove_physical(self, chosen: t.Sequence[Entry]) -> None:
        """pgBackRest reads the repository, all of it or one backup. It is read at level deep too, and says so."""
        if not chosen:
            return
        wanted = {entry.id: entry for entry in chosen}
        for settings, _database in self._order.sources.pgbackrest:
            driver = pgbackrest_settings.driver(settings, self._runner)
            label = str(chosen[0].manifest.contents.get("label", "")) if len(chosen) == 1 else ""
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise DeadlinePassed("There was no time left for pgBackRest's verify.", reason="deadline_passed")
            report = pgbackrest_verify.verify(driver, clock=self._clock, timeout=left, label=label)
            pgbackrest_verify.store(driver, report)
            for entry in wanted.values():
                found = report.verifications.get(str(entry.manifest.contents.get("label", "")))
                if entry.store == driver.place and found is not None:
                    self._take(entry, found)
            for problem in report.problems:
                self.repository_problems.append(f"{driver.place}: {problem}")
                self._say(self.repository_problems[-1])


def verify(
    params: t.Mapping[str, t.Any],
    *,
    check_mode: bool,
    runner: CommandRunner,
    clock: Clock,
    say: t.Callable[[str], None] = lambda _line: None,
) -> Result:
    """The module's work, and the command's. Raises when a backup doesn't hold; the results stand in its details."""
    order = order_from(params)
    if not (order.sources.specs or order.sources.pgbackrest):
        raise Refused(
            "None of the kinds of stores that were asked for is used here.",
            reason="no_store_here",
            phase="look",
            state="Nothing was touched.",
            next_step="Ask for others.",
        )
    prover = Prover(order, runner=runner, clock=clock, say=say)
    chosen, problems = prover.look(write_cache=not check_mode)
    values = {
        "planned": [{"id": entry.id, "store": entry.store, "level": order.level} for entry in chosen],
        "problems": [problem.as_dict() for problem in problems],
    }
    if check_mode:
        return Result(changed=bool(chosen), values={**values, "results": []})
    try:
        prover.prove(chosen)
    except HmsError as error:
        error.details.setdefault("results", [outcome.as_dict() for outcome in prover.outcomes])
        raise
    results = [outcome.as_dict() for outcome in prover.outcomes]
    bad = [outcome for outcome in prover.outcomes if not outcome.verification.ok]
    told = [outcome.told() for outcome in bad] + prover.repository_problems
    if told:
        raise HmsError(
            "; ".join(told) + ".",
            reason="verification_failed",
            phase="verify",
            state=f"{len(bad)} of {len(results)} don't hold and don't count as verified any more.",
            next_step="Make a new backup now, and look at the store.",
            details={"results": results},
        )
    partial = [problem.what for problem in problems if problem.kind == "unreachable"]
    partial += [outcome.told() for outcome in prover.outcomes if outcome.verification.partial]
    if order.level == "deep" and any(outcome.engine == "pgbackrest" for outcome in prover.outcomes):
        partial.append("pgBackRest's backups were read to their end and not restored: that needs a server of its own.")
    return Result(changed=bool(results), values={**values, "results": results}, warnings=partial)
