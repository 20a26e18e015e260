# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One pg_dump backup, carried out: snapshot, members, verification, and the manifest last. PRIVATE."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import typing as t

from .._artifact.manifest import MANIFEST, Manifest, Member, Verification
from .._artifact.staging import Staging
from .._artifact.verify import ArtifactCheck, verify_artifact
from .._clock import iso, parse_iso
from .._errors import HmsError, ToolFailed, defect
from .._files import dump_json
from .._store.model import ObjectStore, S3Spec
from .._store.tee import put_everywhere
from .._tools import compressors
from .._tools.gpg import Gpg
from .._tools.pg_restore import PgRestore
from .contents import read_contents, read_properties
from .deep_verify import DeepVerifier
from .dump_engine import FROM_SNAPSHOT, DumpEngine, Place, lost_race
from .look import Look, Ports
from .model import Wish
from .plan import BackupPlan, MemberPlan
from .record import BackupRecord
from .snapshot import Leader, RowCounter, Snapshot, countable
from .staging_plan import jobs_of, needs_staging

_ATTEMPTS = 4
_PAUSE = 2.0


def lock_until(wish: Wish, now: datetime.datetime) -> datetime.datetime | None:
    """Until when object lock holds what is stored now: as long as retention by days keeps it."""
    rules = wish.retention.get(wish.type)
    locked = any(isinstance(spec, S3Spec) and spec.object_lock for spec in wish.stores)
    if not locked or rules is None or not rules.days:
        return None
    return now + datetime.timedelta(days=rules.days)


class Artifact:
    """The making of one backup. Until `make` returns there is none; when it raises nothing of it is left."""

    def __init__(
        self, wish: Wish, seen: Look, plan: BackupPlan, record: BackupRecord, ports: Ports, *, deadline: float
    ) -> None:
        self._wish = wish
        self._seen = seen
        self._plan = plan
        self._record = record
        self._ports = ports
        self._deadline = deadline
        self._place = Place(seen.stores, wish.cluster, wish.database, plan.id, lock_until(wish, seen.clock.now()))

    def make(self) -> Manifest:
        """All of it; the manifest as it is stored."""
        try:
            manifest = self._dump()
            if self._wish.verify != "none":
                manifest = self._verified(manifest)
            # from here on nothing on this host can read what was encrypted to public keys
            self._seen.keyring.destroy_private()
            self._publish(manifest)
        except BaseException as error:
            self._undo(error)
            raise
        return manifest

    def _undo(self, error: BaseException) -> None:
        left = self._place.clear()
        if isinstance(error, HmsError):
            newest = max((one for known in self._seen.known.values() for one in known), default="")
            told = ["No backup was made; nothing of it is left in the store."]
            if left:
                told = [f"No backup was made, but {'; '.join(left)} Without a manifest it counts for nothing."]
            if newest:
                told.append(f"Earlier backups are as they were; the newest is {newest}.")
            error.state = " ".join(told)

    def _dump(self) -> Manifest:
        """Dump; again where somebody asked for a table at the wrong moment."""
        begun = self._ports.clock.monotonic()
        for attempt in range(_ATTEMPTS):
            try:
                snapshot, contents, members = self._try_to_dump()
                break
            except ToolFailed as error:
                if attempt + 1 == _ATTEMPTS or not lost_race(error):
                    raise
            # what waits for the tables gets them now
            self._place.clear()
            self._ports.clock.sleep(_PAUSE)
        else:  # pragma: no cover  # the last attempt raises
            raise defect("The dump's last attempt")
        return self._manifest(snapshot, contents, members, self._ports.clock.monotonic() - begun)

    def _try_to_dump(self) -> tuple[Snapshot, dict[str, t.Any], tuple[Member, ...]]:
        engine = self._engine(None)
        properties = read_properties(self._seen.session, self._seen.facts.source)
        members = [
            self._member(plan, engine, properties) for plan in self._plan.members if plan.role not in FROM_SNAPSHOT
        ]
        with contextlib.ExitStack() as staged:
            staging = self._staging(staged)
            streamed = [plan for plan in self._plan.members if plan.role in FROM_SNAPSHOT]
            packed = streamed.pop() if staging else None
            with contextlib.ExitStack() as stack:
                snapshot, contents, counter = self._hold(stack)
                engine = self._engine(snapshot.id)
                members += [self._member(plan, engine, properties) for plan in streamed]
                if staging:
                    self._record.step(
                        "dump files",
                        f"Dump into {staging.path} by {jobs_of(self._wish)} workers",
                        functools.partial(engine.dump_files, staging),
                        lambda _nothing: "the tables are free again",
                    )
                if counter is not None:
                    contents["rows"] = counter.rows(self._deadline - self._ports.clock.monotonic())
            if staging and packed:
                members.append(self._packed(packed, engine, staging))
        return snapshot, contents, tuple(members)

    def _staging(self, stack: contextlib.ExitStack) -> Staging | None:
        """The folder for the files of the directory format, gone when `stack` ends."""
        wish = self._wish
        if not needs_staging(wish):
            return None
        return self._record.step(
            "staging",
            f"Make a folder in {wish.staging_dir}; remove what dead runs left there",
            lambda: stack.enter_context(Staging(wish.staging_dir or "", self._plan.id, os_user=wish.os_user)),
            lambda made: f"removed of dead runs: {', '.join(made.gone)}" if made.gone else "nothing was left there",
        )

    def _packed(self, plan: MemberPlan, engine: DumpEngine, staging: Staging) -> Member:
        return self._record.step(
            f"dump {plan.role}",
            f"Store {plan.name}",
            functools.partial(engine.pack, plan, staging, expected=self._plan.estimate),
            lambda member: f"{member.bytes} bytes, SHA-256 {member.sha256}",
        )

    def _engine(self, snapshot: str | None) -> DumpEngine:
        return DumpEngine(
            self._wish,
            clients=self._seen.facts.clients,
            keyring=self._seen.keyring,
            place=self._place,
            snapshot=snapshot,
            major=self._seen.facts.source.server.major,
            deadline=self._deadline,
        )

    def _member(self, plan: MemberPlan, engine: DumpEngine, properties: t.Mapping[str, t.Any]) -> Member:
        return self._record.step(
            f"dump {plan.role}",
            f"Store {plan.name}",
            functools.partial(engine.make, plan, properties=properties, expected=self._plan.estimate),
            lambda member: f"{member.bytes} bytes, SHA-256 {member.sha256}",
        )

    def _hold(self, stack: contextlib.ExitStack) -> tuple[Snapshot, dict[str, t.Any], RowCounter | None]:
        """Take the snapshot and everything that is read in its own session."""
        wish, source = self._wish, self._seen.facts.source
        session = self._ports.connect(wish.connection)
        leader = Leader(session, watcher=self._seen.session, lock_timeout=wish.lock_timeout, major=source.server.major)
        stack.callback(leader.close)
        snapshot = self._record.step(
            "snapshot",
            "Lock every table against changes of its structure, then take the snapshot",
            leader.take,
            lambda taken: f"{len(taken.relations)} relations, LSN {taken.lsn}",
        )
        contents = read_contents(session, source, snapshot.relations)
        if wish.type == "schema_only" or not (wish.row_counts or wish.verify == "deep"):
            return snapshot, contents, None
        counter = RowCounter(session, countable(snapshot.relations, is_standby=source.server.is_standby))
        stack.callback(counter.stop)
        return snapshot, contents, counter

    def _manifest(
        self, snapshot: Snapshot, contents: t.Mapping[str, t.Any], members: tuple[Member, ...], seconds: float
    ) -> Manifest:
        wish, seen = self._wish, self._seen
        server, database = seen.facts.source.server, seen.facts.source.database
        until = self._place.lock_until
        return Manifest(
            id=self._plan.id,
            cluster=wish.cluster,
            environment=wish.environment,
            database=wish.database,
            engine="pg_dump",
            type=wish.type,
            format=wish.format,
            host=self._ports.host,
            by=self._ports.by,
            started=iso(parse_iso(snapshot.time)),
            ended=iso(seen.clock.now()),
            seconds=round(seconds, 3),
            members=members,
            server={
                "version_num": server.version_num,
                "version": server.version,
                "system_identifier": server.system_identifier,
                "timeline": server.timeline,
                "is_standby": server.is_standby,
                "encoding": database.encoding,
                "collate": database.collate,
                "ctype": database.ctype,
                "locale_provider": database.provider,
                "locale": database.locale,
                "host": f"{wish.connection.host}:{wish.connection.port}",
            },
            snapshot=snapshot.as_dict(),
            tools=self._tools(),
            compression=self._compression(),
            encryption=seen.keyring.describe(),
            contents=contents,
            expires_locked=iso(until) if until else "",
        )

    def _tools(self) -> dict[str, str]:
        clients = self._seen.facts.clients
        found = {"pg_dump": clients.pg_dump.version, "pg_dumpall": clients.pg_dumpall.version}
        if self._seen.keyring.method != "none":
            found["gpg"] = Gpg("/nonexistent").version(self._ports.runner)
        return found

    def _compression(self) -> dict[str, t.Any]:
        wanted = self._wish.compression
        level = compressors.effective_level(wanted.method, wanted.level)
        threads = wanted.threads or compressors.default_threads()
        return {"method": wanted.method, "level": level, "threads": threads if wanted.method != "none" else None}

    def _verified(self, manifest: Manifest) -> Manifest:
        """The manifest with the proof in it; raises when what is stored isn't what it should be."""
        checks = [
            self._record.step(
                "verify read",
                f"Read back what {store.name} holds",
                functools.partial(self._read_back, store, manifest),
                lambda check: f"{len(check.members)} members in {check.verification.seconds} s",
            )
            for store in self._seen.stores
        ]
        first = checks[0]
        verification = dataclasses.replace(
            first.verification, seconds=round(sum(check.verification.seconds for check in checks), 3)
        )
        manifest = dataclasses.replace(manifest, members=first.members, verification=verification)
        return self._restored(manifest) if self._wish.verify == "deep" else manifest

    def _read_back(self, store: ObjectStore, manifest: Manifest) -> ArtifactCheck:
        program = PgRestore(self._seen.facts.clients.pg_restore.path, os_user=self._wish.os_user)
        check = verify_artifact(
            store,
            manifest,
            self._seen.keyring,
            pg_restore=program,
            deadline=self._deadline,
            clock=self._seen.clock,
            os_user=self._wish.os_user,
        )
        if not check.verification.ok:
            raise failed_verification(store.name, check.verification.problems)
        if check.verification.partial:
            raise failed_verification(store.name, (check.verification.partial,))
        return check

    def _restored(self, manifest: Manifest) -> Manifest:
        source = self._seen.facts.source
        verifier = DeepVerifier(
            connection=self._wish.connection,
            connect=self._ports.connect,
            clients=self._seen.facts.clients,
            os_user=self._wish.os_user,
            superuser=source.role.superuser,
            staging_dir=self._wish.staging_dir,
        )
        check = self._record.step(
            "verify deep",
            "Restore it into a scratch database and compare the number of rows",
            lambda: verifier.restore_and_compare(
                self._seen.stores[0],
                manifest,
                self._seen.keyring,
                database=source.database,
                major=source.server.major,
                deadline=self._deadline,
            ),
            lambda check: f"{check.rows_compared} tables compared in {check.seconds} s",
        )
        if check.problems:
            raise failed_verification(self._seen.stores[0].name, check.problems)
        read = t.cast(Verification, manifest.verification)
        verification = dataclasses.replace(
            read,
            level="deep",
            at=iso(self._seen.clock.now()),
            seconds=round(read.seconds + check.seconds, 3),
            rows_compared=check.rows_compared,
        )
        return dataclasses.replace(manifest, verification=verification)

    def _publish(self, manifest: Manifest) -> None:
        data = dump_json(manifest.as_dict()).encode()
        self._record.step(
            "manifest",
            "Write the manifest, which makes it a backup",
            lambda: put_everywhere(self._seen.stores, manifest.key(MANIFEST), data, lock_until=self._place.lock_until),
            lambda _nothing: f"{manifest.bytes} bytes in {len(manifest.members)} members",
        )


def failed_verification(store: str, problems: t.Sequence[str]) -> ToolFailed:
    """The error for what was stored and can't be relied on."""
    return ToolFailed(
        f"What was stored in {store} did not stand its verification: {'; '.join(problems)}.",
        reason="verification_failed",
        phase="verify",
        next_step="Look at the store's disk, memory and network, then run again.",
        details={"problems": list(problems)},
    )
