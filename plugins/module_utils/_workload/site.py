# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo's site on this machine: what is left of an earlier demo, and its removal. PRIVATE to the collection.

Ours is what bears the demo's names: instances, the folder, and processes of a few programs that were started
with a file in that folder as an argument. Nothing else is looked at twice.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import os
import shutil
import typing as t

from .._command import CommandRunner, find_program
from .._errors import HmsError, Refused, ToolMissing
from .._files import dump_json, read_json, write_atomic
from .._postgres import ConnectionParams, connect
from .._tools.pg_cluster_tools import ListedInstance, PgDropCluster, PgLsClusters
from .._tools.service import processes_in, systemd_runs
from . import crash, process, supervisor

FOLDER_NAME = "hms-postgres-demo"
STATE = "demo.json"
"""In the folder: the digest of the code that built the site, and whether the last demo went to its end."""
WRITERS = "writers"
PROGRAMS = ("pgbouncer", "pg_basebackup", "pg_rewind")
"""What may run with a file of the demo as an argument: PgBouncer, and what an interrupted rejoin left behind."""
UNITS = "/etc/systemd/system"


@dataclasses.dataclass(frozen=True)
class Site:
    """The names by which the demo's things are known."""

    folder: str
    instances: tuple[str, ...]
    units: tuple[str, ...] = ()
    """systemd units that belong to it, with their wildcards."""
    poolers: int = 1
    """PgBouncer processes that it has when it is whole."""

    def check(self) -> None:
        """Refuse a folder that can't be the demo's: it would be removed."""
        if not os.path.isabs(self.folder) or not os.path.basename(self.folder).startswith(FOLDER_NAME):
            raise Refused(
                f"{self.folder} is not a demo's folder: its name has to begin with {FOLDER_NAME}.",
                reason="not_ours",
                state="Nothing was removed.",
            )

    def state(self) -> dict[str, t.Any] | None:
        """What the last demo noted; None where there was none."""
        note = read_json(os.path.join(self.folder, STATE))
        return note if isinstance(note, dict) else None

    def remember(self, *, digest: str, finished: bool) -> None:
        """Note what this demo builds from, how far it is, and who runs it."""
        runner = playbook()
        by = {"pid": runner.pid, "started": runner.started} if runner else None
        write_atomic(os.path.join(self.folder, STATE), dump_json({"digest": digest, "finished": finished, "by": by}))

    def check_alone(self) -> None:
        """Refuse while another demo is under way: it would lose its site in the middle."""
        by, own = (self.state() or {}).get("by"), playbook()
        if by and process.alive(by["pid"], by["started"]) and not (own and own.pid == by["pid"]):
            raise Refused(
                f"Another demo is under way: process {by['pid']}.",
                reason="demo_runs",
                state="Nothing was touched.",
                next_step="Wait for its end, or end it and run this again.",
            )


def instances(site: Site, runner: CommandRunner) -> list[ListedInstance]:
    """The demo's instances; none where PostgreSQL isn't installed yet."""
    try:
        listed = PgLsClusters(runner).all()
    except ToolMissing:
        return []
    return [instance for instance in listed if instance.name in site.instances]


def arguments(pid: int) -> list[bytes]:
    """A process's program, without its folder, and its arguments; an empty list when it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as source:
            words = source.read().split(b"\0")
    except OSError:
        return []
    return [os.path.basename(words[0]), *words[1:]]


def playbook() -> process.Process | None:
    """The ansible-playbook by which this process was started, or None."""
    found, one = None, process.look(os.getpid())
    while one is not None and one.pid > 1:
        if b"ansible-playbook" in (os.path.basename(word) for word in arguments(one.pid)[:2]):
            found = one
        one = process.look(one.parent)
    return found


def is_ours(site: Site, words: t.Sequence[bytes]) -> bool:
    """Whether a process is the demo's: one of our programs, with a file in the demo's folder as an argument."""
    inside = site.folder.rstrip("/").encode() + b"/"
    if not any(word.rpartition(b"=")[2].startswith(inside) for word in words[1:]):
        return False
    agent = words[0].startswith(b"python3") and words[1] == b"-c" and b"hms-postgres" in words[2]
    return agent or words[0].decode(errors="replace") in PROGRAMS


def working(site: Site, *programs: str) -> list[process.Process]:
    """The demo's processes that run; with `programs`, those of them only."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        words = arguments(int(name))
        if not words or not is_ours(site, words) or (programs and words[0].decode(errors="replace") not in programs):
            continue
        one = process.look(int(name))
        if one is not None and one.runs:
            found.append(one)
    return found


def problem(site: Site, runner: CommandRunner) -> str:
    """Why the site has to be removed and built anew; empty when it may stay, or when there is none."""
    found, state = instances(site, runner), site.state()
    if state is not None and not state.get("finished"):
        return "the last demo did not come to a good end"
    if not found:
        return "files of an earlier demo are left, but no instance" if os.path.isdir(site.folder) else ""
    if len(found) < len(site.instances):
        return f"only {found[0].title} is there"
    down = [instance.title for instance in found if not instance.running]
    if down:
        return f"{' and '.join(down)} down"
    primaries = [instance for instance in found if not crash.is_standby(instance.data_directory)]
    return "" if len(primaries) == 1 else f"{len(primaries)} of its instances are primaries"


def stands(site: Site, runner: CommandRunner, digest: str) -> bool:
    """Whether the site is whole, at work, and was built by the same code: then there is nothing to build."""
    state = site.state()
    if state is None or state.get("digest") != digest or len(working(site, "pgbouncer")) != site.poolers:
        return False
    found = [one for one in instances(site, runner) if not crash.is_standby(one.data_directory)]
    return len(found) == 1 and streaming(found[0]) == len(site.instances) - 1


def streaming(instance: ListedInstance) -> int:
    """How many standbys stream from an instance; -1 when it does not say."""
    params = ConnectionParams(host=instance.socket_directory, port=instance.port or 5432, connect_timeout=2)
    try:
        session = connect(params, os_user=params.user)
        try:
            return int(session.value("SELECT count(*) FROM pg_catalog.pg_stat_replication WHERE state = 'streaming'"))
        finally:
            session.close()
    except HmsError:
        return -1


def digest_of(paths: t.Iterable[str]) -> str:
    """One number for the content of files and folders; compiled Python doesn't count."""
    total = hashlib.sha256()
    for top in paths:
        files = [top] if os.path.isfile(top) else []
        for folder, folders, names in os.walk(top):
            folders[:] = sorted(set(folders) - {"__pycache__"})
            files += [os.path.join(folder, name) for name in sorted(names)]
        for path in files:
            with open(path, "rb") as source:
                total.update(path.encode() + b"\0" + hashlib.sha256(source.read()).digest())
    return total.hexdigest()


def prepare(site: Site, runner: CommandRunner, *, digest: str = "") -> dict[str, t.Any]:
    """End what an earlier demo left behind, remove a site that is not whole, and note that a demo is under way."""
    site.check()
    site.check_alone()
    supervisor.stop(os.path.join(site.folder, WRITERS))
    reason = problem(site, runner)
    removed = clean(site, runner)["removed"] if reason else []
    standing = stands(site, runner, digest)
    _make_folder(site.folder)
    site.remember(digest=digest, finished=False)
    return {"reason": reason, "removed": removed, "stands": standing}


def _make_folder(path: str) -> None:
    """The folder: anybody may pass, for the instances lie below it; who called sudo keeps secrets and records there."""
    before = os.umask(0o022)
    try:
        os.makedirs(path, exist_ok=True)
    finally:
        os.umask(before)
    if os.geteuid() == 0:
        os.chown(path, int(os.environ.get("SUDO_UID", "0")), int(os.environ.get("SUDO_GID", "0")))


def finish(site: Site) -> None:
    """The demo went to its end."""
    site.check()
    state = site.state() or {}
    site.remember(digest=str(state.get("digest", "")), finished=True)


def clean(site: Site, runner: CommandRunner) -> dict[str, t.Any]:
    """Remove all that the demo made; returns what was removed."""
    site.check()
    site.check_alone()
    removed = []
    if supervisor.stop(os.path.join(site.folder, WRITERS)):
        removed.append("the writers")
    removed += _units(site, runner)
    for one in working(site):
        program = b" ".join(arguments(one.pid)[:1]).decode(errors="replace")
        process.end(one.pid, one.started, patience=5.0)
        removed.append(f"{program}, process {one.pid}")
    for instance in instances(site, runner):
        _drop(instance, runner)
        removed.append(f"the instance {instance.title}")
    if os.path.isdir(site.folder):
        shutil.rmtree(site.folder)
        removed.append(site.folder)
    return {"removed": removed}


def _drop(instance: ListedInstance, runner: CommandRunner) -> None:
    """Drop an instance; what a crash left running in its data directory is ended first."""
    if processes_in(instance.data_directory) and not instance.running:
        for pid in processes_in(instance.data_directory):
            one = process.look(pid)
            if one is not None:
                process.end(pid, one.started, patience=2.0)
    PgDropCluster(runner).drop(version=instance.version, name=instance.name, stop=instance.running)


def _units(site: Site, runner: CommandRunner) -> list[str]:
    """Stop and remove systemd units and their drop-ins; nothing where systemd doesn't run."""
    if not systemd_runs():
        return []
    systemctl = find_program("systemctl")
    removed = []
    for pattern in site.units:
        runner.run([systemctl, "stop", pattern], timeout=60.0)
        for place in (pattern, pattern + ".d", os.path.join("*.wants", pattern)):
            removed += [_remove(path) for path in sorted(glob.glob(os.path.join(UNITS, place)))]
    if removed:
        runner.run([systemctl, "daemon-reload"], timeout=60.0).check("Telling systemd that units are gone")
    return removed


def _remove(path: str) -> str:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
    return path
