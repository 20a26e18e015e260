# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo's site on this machine: what is left of an earlier demo, and its removal. PRIVATE to the collection.

Ours is what bears the demo's names: instances, the folder, and PgBouncer processes that were started with a
configuration below that folder. Nothing else is looked at twice.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import shutil
import typing as t

from .._command import CommandRunner, find_program
from .._errors import Refused, ToolMissing
from .._files import write_atomic
from .._tools.pg_cluster_tools import ListedInstance, PgDropCluster, PgLsClusters
from .._tools.service import processes_in, systemd_runs
from . import crash, process, supervisor

FOLDER_NAME = "hms-postgres-demo"
UNFINISHED = "unfinished"
"""A file in the folder while a demo runs: where it is found at the start, the last demo was interrupted."""
WRITERS = "writers"
UNITS = "/etc/systemd/system"


@dataclasses.dataclass(frozen=True)
class Site:
    """The names by which the demo's things are known."""

    folder: str
    instances: tuple[str, ...]
    units: tuple[str, ...] = ()
    """systemd units that belong to it, with their wildcards."""

    def check(self) -> None:
        """Refuse a folder that can't be the demo's: it would be removed."""
        if not os.path.isabs(self.folder) or not os.path.basename(self.folder).startswith(FOLDER_NAME):
            raise Refused(
                f"{self.folder} is not a demo's folder: its name has to begin with {FOLDER_NAME}.",
                reason="not_ours",
                state="Nothing was removed.",
            )

    @property
    def marker(self) -> str:
        """The file that says that a demo is under way."""
        return os.path.join(self.folder, UNFINISHED)


def instances(site: Site, runner: CommandRunner) -> list[ListedInstance]:
    """The demo's instances; none where PostgreSQL isn't installed yet."""
    try:
        listed = PgLsClusters(runner).all()
    except ToolMissing:
        return []
    return [instance for instance in listed if instance.name in site.instances]


def poolers(site: Site) -> list[process.Process]:
    """PgBouncer processes with a configuration file in the demo's folder."""
    inside = (os.path.realpath(site.folder) + "/").encode()
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as source:
                argv = source.read().split(b"\0")
        except OSError:
            continue
        one = process.look(int(name))
        if one is None or not one.runs or os.path.basename(argv[0]) != b"pgbouncer":
            continue
        if any(os.path.realpath(word).startswith(inside) for word in argv[1:] if word.startswith(b"/")):
            found.append(one)
    return found


def problem(site: Site, runner: CommandRunner) -> str:
    """Why the site can't be used as it is; empty when it can, or when there is none."""
    found = instances(site, runner)
    if os.path.exists(site.marker):
        return "the last demo was interrupted"
    if not found:
        return "files of an earlier demo are left, but no instance" if os.path.isdir(site.folder) else ""
    if len(found) < len(site.instances):
        return f"only {found[0].title} is there"
    down = [instance.title for instance in found if not instance.running]
    if down:
        return f"{' and '.join(down)} down"
    primaries = [instance for instance in found if not crash.is_standby(instance.data_directory)]
    return "" if len(primaries) == 1 else f"{len(primaries)} of its instances are primaries"


def prepare(site: Site, runner: CommandRunner) -> dict[str, t.Any]:
    """End what an earlier demo left behind, remove a site that is not whole, and note that a demo is under way."""
    site.check()
    supervisor.stop(os.path.join(site.folder, WRITERS))
    reason = problem(site, runner)
    removed = clean(site, runner)["removed"] if reason else []
    os.makedirs(site.folder, mode=0o755, exist_ok=True)
    write_atomic(site.marker, "A demo is under way.\n")
    there = instances(site, runner)
    return {"reason": reason, "removed": removed, "exists": bool(there)}


def finish(site: Site) -> bool:
    """The demo went to its end: the site is whole."""
    try:
        os.unlink(site.marker)
    except FileNotFoundError:
        return False
    return True


def clean(site: Site, runner: CommandRunner) -> dict[str, t.Any]:
    """Remove all that the demo made; returns what was removed."""
    site.check()
    removed = []
    if supervisor.stop(os.path.join(site.folder, WRITERS)):
        removed.append("the writers")
    removed += _units(site, runner)
    for one in poolers(site):
        process.end(one.pid, one.started, patience=5.0)
        removed.append(f"PgBouncer process {one.pid}")
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
