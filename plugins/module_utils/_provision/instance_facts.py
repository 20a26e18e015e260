# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Looking at an instance: its files, its process, what the server itself says. PRIVATE to the collection."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import typing as t

from .._clock import Clock, wait_until
from .._command import CommandRunner
from .._errors import ConnectionFailed, HmsError, ToolMissing
from .._postgres import ConnectionParams, Session
from .._tools.pg_cluster_tools import ListedInstance, PgLsClusters
from .._tools.pg_controldata import PgControldata
from .._tools.service import postmaster_pid
from .instance_model import (
    ConfigError,
    DataDirectory,
    InstanceFacts,
    InstanceWish,
    PendingSetting,
    Postmaster,
    RunningFacts,
)
from .ports import find_holder

Connector = t.Callable[[ConnectionParams], Session]
"""Opens a session as the instance's operating system user."""

_VERSION = re.compile(r"\(PostgreSQL\)\s+(?P<version>.+?)\s*$")
_CANNOT_CONNECT_NOW = "57P03"
_REMOVED = re.compile(r'parameter "(?P<name>[^"]+)" cannot be changed without restarting')
_NOT_APPLIED = "setting could not be applied"

_STATUS_SQL = """
SELECT pg_catalog.current_setting('server_version'), pg_catalog.pg_is_in_recovery(),
       (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()),
       EXTRACT(epoch FROM pg_catalog.pg_conf_load_time())::float8,
       pg_catalog.pg_encoding_to_char(d.encoding), d.datcollate
  FROM pg_catalog.pg_database d WHERE d.datname = 'template1'
"""
_FILE_ERRORS_SQL = """
SELECT name, coalesce(sourcefile, ''), coalesce(sourceline, 0), coalesce(setting, ''), error
  FROM pg_catalog.pg_file_settings WHERE error IS NOT NULL ORDER BY seqno
"""
_PENDING_SQL = """
SELECT s.name, pg_catalog.current_setting(s.name),
       coalesce((SELECT f.setting FROM pg_catalog.pg_file_settings f WHERE f.name = s.name
                  ORDER BY f.seqno DESC LIMIT 1), s.boot_val)
  FROM pg_catalog.pg_settings s WHERE s.pending_restart ORDER BY s.name
"""
_HBA_ERRORS_SQL = """
SELECT pg_catalog.current_setting('hba_file'), line_number, error
  FROM pg_catalog.pg_hba_file_rules WHERE error IS NOT NULL ORDER BY line_number
"""
_WATCHED_SQL = """
SELECT setting FROM pg_catalog.pg_settings
 WHERE name IN ('config_file', 'hba_file', 'ident_file', 'ssl_cert_file', 'ssl_key_file', 'ssl_ca_file')
   AND setting <> ''
"""


def installed_version(runner: CommandRunner, bin_directory: str) -> str:
    """The version of the installed server program as it prints it, '' where there is none."""
    program = os.path.join(bin_directory, "postgres")
    if not os.access(program, os.X_OK):
        return ""
    printed = runner.run([program, "--version"], timeout=10.0).check("Asking PostgreSQL for its version").stdout
    match = _VERSION.search(printed)
    return match.group("version") if match else printed.strip()


def _owner(path: str) -> str:
    uid = os.stat(path).st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _data_version(path: str) -> int | None:
    try:
        with open(os.path.join(path, "PG_VERSION"), encoding="ascii") as source:
            return int(float(source.read().strip()))
    except (OSError, ValueError):
        return None


def look_at_data(path: str, *, runner: CommandRunner, bin_directory: str) -> DataDirectory:
    """What lies in a data directory; the control file is read where the programs are installed."""
    if not os.path.lexists(path):
        return DataDirectory(kind="missing")
    if not os.path.isdir(path):
        return DataDirectory(kind="not_a_directory")
    names = sorted(os.listdir(path))
    if not names:
        return DataDirectory(kind="empty", owner=_owner(path))
    if "PG_VERSION" not in names:
        return DataDirectory(kind="foreign", owner=_owner(path), sample=tuple(names[:5]))
    found = DataDirectory(
        kind="incomplete",
        version=_data_version(path),
        owner=_owner(path),
        started_before="postmaster.opts" in names,
        standby="standby.signal" in names,
        sample=tuple(names[:5]),
    )
    if not os.path.isfile(os.path.join(path, "global", "pg_control")):
        return found
    return _with_control(found, path, runner=runner, bin_directory=bin_directory)


def _with_control(found: DataDirectory, path: str, *, runner: CommandRunner, bin_directory: str) -> DataDirectory:
    values = {"kind": "cluster", "version": found.version, "owner": found.owner}
    values.update(started_before=found.started_before, standby=found.standby)
    with contextlib.suppress(ToolMissing):
        control = PgControldata(runner, bin_directory=bin_directory).read(path)
        values.update(
            system_identifier=control.system_identifier,
            control_state=control.state,
            timeline=control.timeline,
            checksums=control.checksums,
        )
    return DataDirectory(**t.cast("t.Any", values))


def find_postmaster(data_directory: str) -> Postmaster | None:
    """The living server process of a data directory."""
    pid = postmaster_pid(data_directory)
    if pid is None:
        return None
    try:
        link = os.readlink(f"/proc/{pid}/exe")
    except OSError:
        link = ""
    suffix = " (deleted)"
    return Postmaster(pid=pid, executable=link.replace(suffix, ""), deleted=link.endswith(suffix))


def postmaster_address(data_directory: str) -> tuple[str, int] | None:
    """Socket directory and port from postmaster.pid: where the server really listens."""
    try:
        with open(os.path.join(data_directory, "postmaster.pid"), encoding="utf-8") as source:
            lines = source.read().splitlines()
        return lines[4].strip() or "/tmp", int(lines[3])
    except (OSError, IndexError, ValueError):
        return None


def _judge_settings(
    file_rows: t.Sequence[tuple[t.Any, ...]], pending_rows: t.Sequence[tuple[t.Any, ...]]
) -> tuple[list[PendingSetting], list[ConfigError]]:
    """What waits for a restart, and what is really wrong.

    pg_file_settings lists both as errors. pg_settings.pending_restart tells them apart, but stays set after a value
    was taken back, so a setting waits only where both views say so.
    """
    marked = {str(row[0]) for row in pending_rows}
    waiting: set[str] = set()
    errors = []
    for name, file, line, value, error in file_rows:
        removed = _REMOVED.search(error)
        if removed:
            waiting.add(removed["name"])
        elif error == _NOT_APPLIED and name in marked:
            waiting.add(name)
        else:
            text = f"{name} = {value}: {error}" if name else error
            errors.append(ConfigError(file=file, line=int(line), message=text))
    pending = [PendingSetting(str(name), str(now), str(new)) for name, now, new in pending_rows if name in waiting]
    return pending, errors


def ask_server(session: Session) -> tuple[RunningFacts, tuple[str, ...]]:
    """What the server says about itself, and the files that it reads its configuration from."""
    status = session.row(_STATUS_SQL)
    if status is None:
        raise HmsError("The server has no database template1.", reason="unexpected_output")
    # pg_file_settings marks, in this session, what waits for a restart: it is read before pg_settings
    file_rows = session.rows(_FILE_ERRORS_SQL)
    pending, errors = _judge_settings(file_rows, session.rows(_PENDING_SQL))
    errors += [ConfigError(str(file), int(line), str(text)) for file, line, text in session.rows(_HBA_ERRORS_SQL)]
    watched = tuple(str(row[0]) for row in session.rows(_WATCHED_SQL))
    version, in_recovery, timeline, loaded_at, encoding, locale = status
    facts = RunningFacts(
        server_version=str(version),
        in_recovery=bool(in_recovery),
        timeline=int(timeline),
        config_loaded_at=float(loaded_at),
        encoding=str(encoding),
        locale=str(locale),
        pending=tuple(pending),
        errors=tuple(errors),
    )
    return facts, watched


def newest_change(paths: t.Iterable[str]) -> tuple[float, str]:
    """When the newest of these files was written or renamed into place, and which one it is."""
    newest = (0.0, "")
    for path in paths:
        with contextlib.suppress(OSError):
            status = os.stat(path)
            newest = max(newest, (max(status.st_mtime, status.st_ctime), path))
    return newest


def _config_files(config_directory: str, watched: t.Sequence[str], data_directory: str) -> list[str]:
    folder = os.path.join(config_directory, "conf.d")
    try:
        fragments = [os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".conf")]
    except OSError:
        fragments = []
    else:
        fragments.append(folder)  # a fragment that was removed shows in the folder's own time
    return [os.path.join(data_directory, path) for path in watched] + fragments


def _open(connect: Connector, params: ConnectionParams, clock: Clock) -> Session:
    """Connect, with patience for a server that is still starting."""
    result: list[Session] = []
    last: list[ConnectionFailed] = []

    def answers() -> bool:
        try:
            result.append(connect(params))
        except ConnectionFailed as error:
            last[:] = [error]
            starting = error.details.get("sqlstate") == _CANNOT_CONNECT_NOW or "starting up" in error.message
            if not starting:
                raise
            return False
        return True

    if not wait_until(answers, clock=clock, timeout=30.0, interval=0.2):
        raise last[0]
    return result[0]


class InstanceInspector:
    """Looks at one instance of this host; changes nothing."""

    def __init__(self, *, runner: CommandRunner, connect: Connector, clock: Clock) -> None:
        self._runner = runner
        self._connect = connect
        self._clock = clock

    def instances(self) -> tuple[ListedInstance, ...]:
        """Every instance that Debian's tools know; none where the tools aren't installed."""
        return PgLsClusters(self._runner).all()

    def inspect(self, wish: InstanceWish) -> InstanceFacts:
        """Everything the plan needs to know."""
        values: dict[str, t.Any] = {}
        with contextlib.suppress(ToolMissing):
            values.update(self._listed(wish))
        data_directory = values.get("configured_data_directory") or wish.data_directory
        if data_directory == wish.scaffold_directory:
            data_directory = wish.data_directory
        postmaster = find_postmaster(data_directory)
        values.update(
            installed_version=installed_version(self._runner, wish.bin_directory),
            data=look_at_data(data_directory, runner=self._runner, bin_directory=wish.bin_directory),
            creation_interrupted=os.path.exists(wish.creation_marker),
            postmaster=postmaster,
        )
        own = postmaster_address(data_directory) if postmaster else None
        if own is None or own[1] != wish.port:
            values["port_holder"] = find_holder(wish.port)
        if postmaster is not None:
            values.update(self._running(wish, data_directory))
        return InstanceFacts(**values)

    def _listed(self, wish: InstanceWish) -> dict[str, t.Any]:
        listed = self.instances()
        own = [entry for entry in listed if (entry.version, entry.name) == (wish.version, wish.name)]
        values: dict[str, t.Any] = {
            "tools_present": True,
            "others": tuple(entry for entry in listed if entry not in own),
            "configured": os.path.exists(os.path.join(wish.config_directory, "postgresql.conf")),
        }
        if own:
            values.update(
                configured_data_directory=own[0].data_directory,
                configured_port=own[0].port,
                configured_socket_directory=own[0].socket_directory,
                start_conf=own[0].start_conf,
            )
        return values

    def _running(self, wish: InstanceWish, data_directory: str) -> dict[str, t.Any]:
        host, port = postmaster_address(data_directory) or (wish.socket_directory, wish.port)
        params = ConnectionParams(host=host, port=port, user=wish.os_user, connect_timeout=5)
        try:
            session = _open(self._connect, params, self._clock)
        except ConnectionFailed as error:
            return {"unreachable": error.message}
        try:
            running, watched = ask_server(session)
        finally:
            session.close()
        changed_at, changed_file = newest_change(_config_files(wish.config_directory, watched, data_directory))
        return {"running": running, "config_changed_at": changed_at, "config_changed_file": changed_file}
