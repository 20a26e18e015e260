# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The artifact that is meant: by id, the newest, by path, in a bucket; old ones have no manifest. PRIVATE."""

from __future__ import annotations

import dataclasses
import os
import stat
import typing as t

from .._artifact.catalog import MANIFEST_LIMIT, Entry, read_manifest
from .._artifact.catalog_parse import manifest_from_bytes
from .._artifact.manifest import MANIFEST, Manifest, Member
from .._artifact.sources import look
from .._artifact.streams import ENCRYPTED
from .._artifact.verify import is_directory
from .._command import CommandRunner
from .._errors import HmsError, Refused
from .._record import is_id
from .._store.model import FolderSpec, ObjectReader, ObjectStore, S3Spec
from .._store.open_store import open_store
from .._tools.compressors import SUFFIXES
from .model import Order

_LOADED = {"full": "data", "schema_only": "schema"}


@dataclasses.dataclass(frozen=True)
class Artifact:
    """What is to be restored.

    Attributes:
        name: what people call it: the id, or where it lies.
        prefix: what the keys of its members begin with.
        manifest: None for a file that stands alone.
        member: what is loaded.
        schema: a small archive of the structure alone, where there is one.
        bad: a verification failed and none has taken that back.
        verified: a verification held.
    """

    name: str
    store: ObjectStore
    prefix: str
    manifest: Manifest | None
    member: Member
    schema: Member | None = None
    bad: bool = False
    verified: bool = False

    @property
    def kind(self) -> t.Literal["archive", "sql"]:
        """Whether pg_restore reads it, or it is a script."""
        return "sql" if plain_name(self.member.name).endswith(".sql") else "archive"

    @property
    def identity(self) -> str:
        """The same for the same artifact, whatever the path to it."""
        made = self.manifest
        if made is not None:
            return f"{made.cluster}/{made.database}/{made.id}/{self.member.sha256}"
        return f"{self.name}:{self.member.bytes}:{self.member.sha256}"

    def open(self, member: Member) -> ObjectReader:
        """Read a member as it is stored."""
        return self.store.open(self.prefix + member.name)

    def as_dict(self) -> dict[str, t.Any]:
        """For the plan."""
        made = self.manifest
        return {
            "name": self.name,
            "store": self.store.name,
            "member": self.member.name,
            "bytes": self.member.bytes,
            "verified by manifest": "yes" if made else "no",
            "verified": self.verified,
            "taken": made.snapshot.get("time", made.started) if made else None,
            "environment": made.environment if made else None,
            "database": made.database if made else None,
            "database_bytes": made.contents.get("database_bytes") if made else None,
            "encryption": made.encryption.get("method") if made else _guess(self.member),
        }


def _guess(member: Member) -> str:
    return "unknown" if member.name.endswith(ENCRYPTED) else "none"


def plain_name(name: str) -> str:
    """A file's name without what tells of encryption and compression."""
    name = name[: -len(ENCRYPTED)] if name.endswith(ENCRYPTED) else name
    ending = next((suffix for suffix in SUFFIXES.values() if suffix and name.endswith(suffix)), "")
    return name[: -len(ending)] if ending else name


def jobs_of(artifact: Artifact, order: Order) -> int:
    """How many jobs of pg_restore load it. Nobody's archive comes to lie on a disk because we thought of several."""
    if is_directory(artifact.member):
        return order.workers
    return order.jobs or 1 if artifact.kind == "archive" else 1


def lies_in(artifact: Artifact, order: Order) -> str:
    """The folder where it lies decrypted meanwhile, '' for none."""
    return order.work_dir if is_directory(artifact.member) or jobs_of(artifact, order) > 1 else ""


def refused(reason: str, message: str, next_step: str) -> Refused:
    """A refusal of the look; nothing was touched by then."""
    return Refused(message, reason=reason, phase="look", state="Nothing was touched.", next_step=next_step)


def find(order: Order, runner: CommandRunner) -> Artifact:
    """The artifact that the order means. Raises `Refused` that says why there is none."""
    try:
        return _find(order, runner)
    except HmsError as error:
        error.state = error.state or "Nothing was touched."
        raise


def _find(order: Order, runner: CommandRunner) -> Artifact:
    wanted = order.backup
    if wanted == "latest" or is_id(wanted):
        return _from_catalog(order, runner)
    if wanted.startswith("s3://"):
        return _from_bucket(wanted, order)
    if not os.path.isabs(wanted):
        raise refused(
            "bad_config",
            f"{wanted!r} is neither latest, nor a backup's id, nor an absolute path, nor s3://bucket/key.",
            "Look at playbooks/backups.yml for what there is.",
        )
    return _from_path(wanted)


def _from_catalog(order: Order, runner: CommandRunner) -> Artifact:
    sources = order.sources.only({"folder", "s3"})
    seen = look(dataclasses.replace(sources, database=None), runner=runner, write_cache=False, windows=False)
    entries = [entry for entry in reversed(seen.catalog.entries) if entry.manifest.engine == "pg_dump"]
    if order.backup == "latest":
        mine = [entry for entry in entries if entry.manifest.database == order.database]
        chosen = next((entry for entry in mine if entry.manifest.type == "full" and not entry.bad), None)
    else:
        chosen = next((entry for entry in entries if entry.id == order.backup), None)
    if chosen is None:
        problems = " ".join(problem.what for problem in seen.catalog.problems)
        meant = f"full backup of {order.database}" if order.backup == "latest" else f"backup {order.backup}"
        raise refused(
            "no_backup",
            f"There is no {meant} by pg_dump in {', '.join(sources.stores()) or 'any store'}. {problems}".strip(),
            "Look at playbooks/backups.yml for what there is; pgBackRest's backups are restored as a whole cluster.",
        )
    return _of_entry(chosen, sources.stores()[chosen.store])


def _of_entry(entry: Entry, store: ObjectStore) -> Artifact:
    manifest = read_manifest(store, entry)
    made = of_manifest(store, manifest.key(""), manifest, manifest.id)
    return dataclasses.replace(made, bad=entry.bad, verified=entry.verified)


def of_manifest(store: ObjectStore, prefix: str, manifest: Manifest, name: str) -> Artifact:
    """An artifact of this collection's."""
    role = _LOADED.get(manifest.type)
    members = [member for member in manifest.members if member.role == role]
    if role is None or len(members) != 1:
        raise refused(
            "not_restorable",
            f"{name} is a {manifest.type} backup in {manifest.format} format by {manifest.engine}, which does not make"
            f" a database by itself.",
            "Choose a full backup.",
        )
    schema = next((member for member in manifest.members if member.role == "schema"), None)
    if is_directory(members[0]) and schema is None:
        raise refused(
            "not_restorable",
            f"{name} is in the directory format, and the small archive of its structure is not beside it.",
            "Choose another backup, or restore this one by hand: docs/backup.md says how.",
        )
    proven = manifest.verification
    return Artifact(
        name, store, prefix, manifest, members[0], schema, verified=bool(proven and proven.ok and not proven.partial)
    )


def _from_bucket(url: str, order: Order) -> Artifact:
    bucket, _slash, key = url[len("s3://") :].partition("/")
    known = [spec for spec in order.sources.specs if isinstance(spec, S3Spec) and spec.bucket == bucket]
    store = open_store(dataclasses.replace(known[0], prefix="") if known else S3Spec(bucket))
    key = key.strip("/")
    if key.endswith("/" + MANIFEST):
        key = key[: -len(MANIFEST) - 1]
    try:
        listed = list(store.list(f"{key}/"))
    except HmsError as error:
        if not known:
            error.next_step += f" The stores of this host's policy: {', '.join(order.sources.stores()) or 'none'}."
        raise
    if any(found.key == f"{key}/{MANIFEST}" for found in listed):
        return _from_folder(store, f"{key}/", key.rpartition("/")[2], url)
    folder, _slash, name = key.rpartition("/")
    sizes = {found.key: found.size for found in store.list(key)}
    if key not in sizes:
        raise refused("no_backup", f"There is no object {url}.", "Correct the address; list the bucket.")
    if f"{folder}/{MANIFEST}" in {found.key for found in store.list(f"{folder}/{MANIFEST}")}:
        return _from_folder(store, f"{folder}/", folder.rpartition("/")[2], url)
    return _alone(store, f"{folder}/" if folder else "", name, sizes[key], url)


def _from_path(path: str) -> Artifact:
    path = os.path.normpath(path)
    try:
        status = os.stat(path)
    except OSError as error:
        raise refused("no_backup", f"{path} can't be read: {error.strerror}.", "Correct the path.") from error
    folder = path if stat.S_ISDIR(status.st_mode) else os.path.dirname(path)
    store = open_store(FolderSpec(folder))
    if os.path.isfile(os.path.join(folder, MANIFEST)):
        return _from_folder(store, "", os.path.basename(folder), path)
    if folder == path:
        raise refused(
            "not_restorable",
            f"{path} is a folder without a {MANIFEST}: no backup of this collection, or one that was never completed.",
            "Give the folder of a whole backup, or a file. A dump in directory format: pg_restore restores it by hand.",
        )
    return _alone(store, "", os.path.basename(path), status.st_size, path)


def _from_folder(store: ObjectStore, prefix: str, folder: str, name: str) -> Artifact:
    found = manifest_from_bytes(store.get(prefix + MANIFEST, limit=MANIFEST_LIMIT))
    if isinstance(found, str):
        raise refused("garbled", f"The manifest at {name} {found}.", "Use another copy of the backup.")
    if is_id(folder) and folder != found.id:
        raise refused(
            "foreign", f"The manifest at {name} is the one of {found.id}.", "Use another copy, with its own manifest."
        )
    made = of_manifest(store, prefix, found, found.id)
    _check_sizes(made)
    return made


def _check_sizes(artifact: Artifact) -> None:
    listed = {found.key[len(artifact.prefix) :]: found.size for found in artifact.store.list(artifact.prefix)}
    for member in (artifact.member, artifact.schema):
        if member is not None and listed.get(member.name) != member.bytes:
            have = listed.get(member.name)
            raise refused(
                "artifact_damaged",
                f"{member.name} of {artifact.name} has {have} bytes in place of {member.bytes}."
                if have is not None
                else f"{member.name} of {artifact.name} is missing.",
                "Use another copy, or another backup.",
            )


def _alone(store: ObjectStore, prefix: str, name: str, size: int, shown: str) -> Artifact:
    """A file without a manifest: nothing says what it should be."""
    if plain_name(name).endswith(".tar"):
        raise refused("not_restorable", f"{shown} is a tar archive.", "Give a custom archive (-Fc) or an SQL script.")
    return Artifact(shown, store, prefix, None, Member("data", name, size, ""))
