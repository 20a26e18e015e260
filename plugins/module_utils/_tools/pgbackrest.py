# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pgBackRest, one method per sub-command. PRIVATE to the collection.

Its exit code is the whole truth for some commands only: `info` ends with 0 when the repository can't be read, and
`verify` when it found damage. Those two are judged by what they print.
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing as t

from .._command import CommandResult, CommandRunner, find_program
from .._errors import HmsError, Refused, ToolFailed
from .._pipeline import Stage

NO_EXPIRY = 9999999
"""A number of full backups that nobody reaches: what is kept is for our own retention to say."""

RC_NOT_ARCHIVED = 1
RC_FILE_MISSING = 55
RC_LOCKED = 50
RC_FILE_OPEN = 41

_VERSION = re.compile(r"pgBackRest (?P<major>\d+)\.(?P<minor>\d+)(?:\.(?P<patch>\d+))?")
_WARNING = re.compile(r"^(?:\S+ \S+ P\d+ +)?WARN: +(?P<text>.*)$", re.MULTILINE)
_READABLE = (0, 2)  # ok, no valid backups
_UNREADABLE = (
    "See that the store is reached, that pgBackRest's user may read its files and the CA's, and that repo-cipher-pass "
    "is the one it was made with."
)
_NO_STANZA = (1, 3)  # missing stanza path, missing stanza data


@dataclasses.dataclass(frozen=True)
class BackupSet:
    """One backup as `info` tells of it. Times are seconds since 1970.

    Attributes:
        error: whether pages with wrong checksums were found in it; pgBackRest keeps such a backup and ends with 0.
        prior: the label of the backup that it builds on, '' for a full one.
        reference: the labels of all backups that hold files of it.
        database_id: which generation of the cluster (stanza-upgrade starts another).
        bytes: of the cluster; stored_bytes: what it added to the repository; chain_bytes: with what it refers to.
    """

    label: str
    type: str
    start: int
    stop: int
    wal_start: str
    wal_stop: str
    lsn_start: str
    lsn_stop: str
    prior: str
    reference: tuple[str, ...]
    database_id: int
    bytes: int
    copied_bytes: int
    stored_bytes: int
    chain_bytes: int
    error: bool
    version: str
    annotations: t.Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Generation:
    """One generation of the cluster in the repository: its archive's name and the server that it is of."""

    database_id: int
    archive_id: str
    wal_min: str
    wal_max: str
    system_identifier: str
    server_version: str


@dataclasses.dataclass(frozen=True)
class Stanza:
    """What `info` says of a stanza in one repository."""

    name: str
    code: int
    message: str
    cipher: str
    busy: bool
    backups: tuple[BackupSet, ...]
    generations: tuple[Generation, ...]


@dataclasses.dataclass(frozen=True)
class Listed:
    """One entry of a folder in the repository."""

    name: str
    folder: bool
    size: int
    time: int


def _backup_set(data: t.Mapping[str, t.Any]) -> BackupSet:
    info = data["info"]
    lsn = data.get("lsn") or {}
    archive = data.get("archive") or {}
    return BackupSet(
        label=data["label"],
        type=data["type"],
        start=data["timestamp"]["start"],
        stop=data["timestamp"]["stop"],
        wal_start=archive.get("start") or "",
        wal_stop=archive.get("stop") or "",
        lsn_start=lsn.get("start") or "",
        lsn_stop=lsn.get("stop") or "",
        prior=data.get("prior") or "",
        reference=tuple(data.get("reference") or ()),
        database_id=data["database"]["id"],
        bytes=info["size"],
        copied_bytes=info["delta"],
        stored_bytes=info["repository"]["delta"],
        # from 2.55 on missing where block-incremental makes it unknown
        chain_bytes=info["repository"].get("size", info["repository"]["delta"]),
        error=bool(data.get("error")),
        version=data["backrest"]["version"],
        annotations=dict(data.get("annotation") or {}),
    )


def parse_info(text: str, stanza: str, repo: int) -> Stanza:
    """What ``info --output=json`` printed about one stanza in one repository; raises `HmsError` on anything else."""
    try:
        # what it could not decrypt stands in its message as it is
        found = next(entry for entry in json.loads(text, strict=False) if entry["name"] == stanza)
        ours = next(entry for entry in found["repo"] if entry["key"] == repo)
        servers = {entry["id"]: entry for entry in found["db"] if entry["repo-key"] == repo}
        return Stanza(
            name=stanza,
            code=ours["status"]["code"],
            message=ours["status"]["message"],
            cipher=ours["cipher"],
            busy=bool(found["status"].get("lock", {}).get("backup", {}).get("held")),
            backups=tuple(_backup_set(entry) for entry in found["backup"] if entry["database"]["repo-key"] == repo),
            generations=tuple(
                Generation(
                    database_id=entry["database"]["id"],
                    archive_id=entry["id"],
                    wal_min=entry.get("min") or "",
                    wal_max=entry.get("max") or "",
                    system_identifier=str(servers[entry["database"]["id"]]["system-id"]),
                    server_version=servers[entry["database"]["id"]]["version"],
                )
                for entry in found["archive"]
                if entry["database"]["repo-key"] == repo
            ),
        )
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise HmsError(
            f"pgBackRest's info about {stanza} (repo{repo}) isn't what we know: {error!r}: {text[:200]!r}",
            reason="unexpected_output",
            next_step="See which version of pgBackRest runs there, and report this.",
        ) from error


def warnings_in(result: CommandResult) -> list[str]:
    """The warnings that a command gave, each once."""
    return list(dict.fromkeys(match["text"].strip() for match in _WARNING.finditer(result.stderr + result.stdout)))


class PgBackRest:
    """One stanza, in one repository of one configuration file.

    Args:
        config: the configuration file; it holds the secrets, so that no argv does.
        os_user: the owner of the data directory and of the configuration.
        repo: the repository's number in the configuration.
        timeout: seconds for commands that only look or write little.
    """

    def __init__(
        self,
        runner: CommandRunner,
        *,
        config: str,
        stanza: str,
        os_user: str | None = "postgres",
        repo: int = 1,
        timeout: float = 300.0,
    ) -> None:
        self.runner = runner
        self.config = config
        self.stanza = stanza
        self.os_user = os_user
        self.repo = repo
        self.timeout = timeout
        self._program: str | None = None

    @property
    def place(self) -> str:
        """The repository for messages."""
        return f"pgbackrest {self.stanza} repo{self.repo}"

    def _run(
        self, command: str, *options: str, repo: bool = True, log: str = "warn", timeout: float | None = None
    ) -> CommandResult:
        if self._program is None:
            self._program = find_program("pgbackrest", needed_for="physical backups")
        argv = [self._program, command, f"--config={self.config}", f"--stanza={self.stanza}"]
        argv += ["--log-level-console=off", f"--log-level-stderr={log}"]
        argv += [f"--repo={self.repo}"] if repo else []
        return self.runner.run([*argv, *options], timeout=timeout or self.timeout, os_user=self.os_user)

    def version(self) -> tuple[int, ...]:
        """Its version, e.g. ``(2, 45)`` or ``(2, 55, 1)``."""
        if self._program is None:
            self._program = find_program("pgbackrest", needed_for="physical backups")
        result = self.runner.run([self._program, "version"], timeout=30.0, os_user=self.os_user)
        match = _VERSION.search(result.check("Asking pgBackRest for its version").stdout)
        if match is None:
            raise HmsError(f"pgBackRest tells no version: {result.stdout[:200]!r}", reason="unexpected_output")
        return tuple(int(part) for part in match.groups() if part is not None)

    def info(self) -> Stanza:
        """What is in the repository. One that can't be read raises, although the program ends with 0."""
        result = self._run("info", "--output=json")
        if result.rc == RC_FILE_MISSING and self.config in result.stderr:
            raise Refused(
                f"pgBackRest is not set up on this host: there is no {self.config}.",
                reason="no_pgbackrest",
                state="Nothing was touched.",
                next_step="Set backup_pgbackrest: true and run playbooks/site.yml; or name the configuration file.",
            )
        self._check(result, "Reading the repository's catalog")
        stanza = parse_info(result.stdout, self.stanza, self.repo)
        if stanza.code in _READABLE:
            return stanza
        missing = stanza.code in _NO_STANZA
        text = " ".join("".join(c if c.isprintable() and c.isascii() else " " for c in stanza.message).split())[:400]
        raise Refused(
            f"The pgBackRest repository of {self.stanza} ({self.config}, repo{self.repo}) "
            + (f"has no stanza: {text}" if missing else f"can't be read: {text}"),
            reason="no_stanza" if missing else "repository_unreadable",
            state="Nothing was touched.",
            next_step="Run playbooks/site.yml, which makes it on the primary." if missing else _UNREADABLE,
            details={"code": stanza.code},
        )

    def stanza_create(self, *, online: bool = True) -> None:
        """Make the stanza; nothing when it is there. On a standby only `online=False` can."""
        # it works on all repositories and knows no --repo
        self._check(self._run("stanza-create", *([] if online else ["--no-online"]), repo=False), "Making the stanza")

    def check(self, *, timeout: float = 120.0) -> None:
        """Switch WAL and wait until it is in the archive of every repository: proof that archiving works."""
        options = [f"--archive-timeout={int(timeout)}"]
        self._check(self._run("check", *options, repo=False, timeout=timeout + 60), "Checking the archiving of WAL")

    def backup(
        self,
        kind: t.Literal["full", "diff", "incr"],
        *,
        annotations: t.Mapping[str, str],
        options: t.Sequence[str] = (),
        timeout: float,
    ) -> list[str]:
        """Make a backup and wait until its WAL is in the archive; returns the warnings. Expires nothing."""
        notes = [f"--annotation={key}={value}" for key, value in annotations.items() if value]
        fixed = [f"--type={kind}", "--start-fast", "--archive-check", "--no-expire-auto"]
        result = self._run("backup", *fixed, *notes, *options, timeout=timeout)
        self._check(result, f"The {kind} backup of {self.stanza}")
        return warnings_in(result)

    def annotate(self, label: str, annotations: t.Mapping[str, str]) -> None:
        """Write notes to a backup; an empty one takes the note away."""
        notes = [f"--annotation={key}={value}" for key, value in annotations.items()]
        self._check(self._run("annotate", f"--set={label}", *notes), f"Writing down what is known of {label}")

    def verify(self, *, label: str = "", timeout: float) -> tuple[str, str]:
        """Read the repository whole, or one backup of it (2.55 and newer): its report and its log.

        The report alone says how it is; the log names the files that are damaged.
        """
        options = ["--output=text", "--verbose", *([f"--set={label}"] if label else [])]
        result = self._run("verify", *options, log="info", timeout=timeout)
        self._check(result, "Verifying the repository")
        return result.stdout, result.stderr

    def expire(self, *, label: str = "", wal_of_fulls: int = 0, dry_run: bool = False, timeout: float) -> CommandResult:
        """Remove one backup with all that depend on it; with `wal_of_fulls`, WAL older than the last so many full ones.

        Without either nothing is removed but what interrupted runs left.
        """
        options = [f"--repo{self.repo}-retention-full={NO_EXPIRY}"]
        options += [f"--set={label}"] if label else []
        options += ["--dry-run"] if dry_run else []
        if wal_of_fulls:
            options += [f"--repo{self.repo}-retention-archive-type=full"]
            options += [f"--repo{self.repo}-retention-archive={wal_of_fulls}"]
        result = self._run("expire", *options, timeout=timeout)
        self._check(result, f"Removing {label or 'old WAL'} from the repository")
        return result

    def repo_ls(self, path: str) -> list[Listed]:
        """The entries of one folder of the repository, by name; nothing where there is no such folder."""
        result = self._run("repo-ls", "--output=json", path)
        self._check(result, f"Listing {path} in the repository")
        try:
            found: dict[str, dict[str, t.Any]] = json.loads(result.stdout)
            return [
                Listed(name, entry["type"] == "path", int(entry.get("size") or 0), int(entry.get("time") or 0))
                for name, entry in sorted(found.items())
                if name != "."
            ]
        except (ValueError, KeyError, AttributeError) as error:
            raise HmsError(
                f"pgBackRest's listing of {path} isn't what we know: {result.stdout[:200]!r}",
                reason="unexpected_output",
            ) from error

    def repo_get(self, path: str) -> str:
        """A small text file of the repository, decrypted."""
        result = self._run("repo-get", path)
        self._check(result, f"Reading {path} from the repository")
        return result.stdout

    def restore_stage(
        self,
        *,
        data: str,
        label: str,
        tablespaces: str,
        spool_path: str,
        lock_path: str,
        processes: int,
        delta: bool,
        timeline: int = 0,
    ) -> Stage:
        """Restore a backup into a folder of its own, with archiving off; what to recover to is left to the caller.

        With `delta` files that are as they should be stay. The spool is emptied; the live server's is another one.
        """
        argv = [
            *self.argv("restore"),
            f"--pg1-path={data}",
            f"--set={label}",
            "--type=default",
            "--archive-mode=off",
            f"--tablespace-map-all={tablespaces}",
            f"--spool-path={spool_path}",
            f"--lock-path={lock_path}",
            f"--process-max={processes}",
            *([f"--target-timeline={timeline}"] if timeline else []),
            *(["--delta"] if delta else []),
        ]
        return Stage("pgbackrest", tuple(argv), os_user=self.os_user)

    def archive_get(self, segment: str, path: str, *, data: str) -> bool:
        """Fetch one file of the archive; False where it isn't there. `data` is of the same cluster."""
        options = (f"--pg1-path={data}", "--no-archive-async", segment, path)
        result = self._run("archive-get", *options)
        if result.rc == RC_NOT_ARCHIVED:
            return False
        self._check(result, f"Fetching {segment} from the archive")
        return True

    def argv(self, command: str) -> list[str]:
        """How a call of pgBackRest begins that something else makes; it speaks of what went wrong alone."""
        if self._program is None:
            self._program = find_program("pgbackrest", needed_for="physical backups")
        argv = [self._program, f"--config={self.config}", f"--stanza={self.stanza}", f"--repo={self.repo}"]
        return [*argv, "--log-level-console=off", "--log-level-stderr=warn", command]

    def _check(self, result: CommandResult, what: str) -> None:
        if result.rc == 0:
            return
        tail = (result.stderr.strip() or result.stdout.strip())[-2000:]
        if result.rc == RC_LOCKED:
            raise Refused(
                f"{what}: another pgBackRest works on {self.stanza}: {tail}",
                reason="busy",
                state="Nothing was touched.",
                next_step="Wait until it is done, or see on the host what runs: pgrep -a pgbackrest.",
                details={"rc": result.rc},
            )
        raise ToolFailed(
            f"{what} failed: pgbackrest ended with {result.rc}: {tail}",
            reason="tool_failed",
            next_step=_advice(tail),
            details={"rc": result.rc, "stderr_tail": tail},
        )


def _advice(tail: str) -> str:
    """What to do about an error that we have met before."""
    for part, advice in (
        ("clock skew", "Set the host's clock right: the newest backup is younger than now."),
        ("archive_mode", "Restart the instance with archiving: playbooks/site.yml -e postgresql_restart=allowed."),
        ("archive_command", "Run playbooks/site.yml: the instance does not archive into this repository."),
        ("unable to find primary", "Run it on the primary; pgBackRest reads a standby only beside its primary."),
        ("stanza-upgrade", "The instance is not the repository's, or of another version: stanza-upgrade, by hand."),
        ("timeout", "See in the server's log why archive-push fails, and in pg_stat_archiver since when."),
    ):
        if part in tail:
            return advice
    return "The message names the cause; mend it and run it again."
