# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What tests of backups need: a database with everything odd in it, keys, stores, and oracles of their own.

The oracles are the plain programs that anybody has: sha256sum, gpg, zstd, gunzip, lz4, pg_restore, psql.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._artifact.manifest import CATALOG
from ansible_collections.hms.postgres.plugins.module_utils._backup.manager import backup
from ansible_collections.hms.postgres.plugins.module_utils._backup.wishes import wish_from
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._module import Result
from ansible_collections.hms.postgres.tests.real.lab import BINARIES, Instance, as_postgres, process_alive, run

PASSPHRASE = "Zwölf Boxkämpfer \\jagen' Viktor"
ROOT = pathlib.Path(__file__).resolve().parents[2]

ODD = """
CREATE EXTENSION pg_trgm;
CREATE TABLE patients (id serial PRIMARY KEY, name text NOT NULL, born date);
INSERT INTO patients (name, born) SELECT 'patient ' || n, date '1950-01-01' + n FROM generate_series(1, 1000) n;
CREATE INDEX ON patients USING gin (name gin_trgm_ops);
CREATE SCHEMA "We ird.""S";
CREATE TABLE "We ird.""S"."Tab le-é😀" ("Col 1" int PRIMARY KEY, "select" text);
INSERT INTO "We ird.""S"."Tab le-é😀" SELECT n, repeat('ü', n) FROM generate_series(1, 77) n;
CREATE TABLE visits (patient int, at timestamptz) PARTITION BY RANGE (at);
CREATE TABLE visits_2025 PARTITION OF visits FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE visits_2026 PARTITION OF visits FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO visits SELECT n, timestamptz '2025-01-01' + n * interval '1 day' FROM generate_series(0, 699) n;
CREATE UNLOGGED TABLE scratchpad AS SELECT n FROM generate_series(1, 12) n;
CREATE TABLE parent (a int); CREATE TABLE child (b int) INHERITS (parent);
INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 3), (4, 5);
CREATE TABLE blobs (id int, data bytea);
INSERT INTO blobs SELECT n, sha256(n::text::bytea) FROM generate_series(1, 50) n;
CREATE MATERIALIZED VIEW counts AS SELECT count(*) FROM patients;
CREATE SEQUENCE lonely START 42; SELECT nextval('lonely');
SELECT lo_from_bytea(0, decode(repeat('ab', n), 'hex')) FROM generate_series(1, 5) n;
CREATE TABLE django_migrations (id serial, app varchar(255), name varchar(255), applied timestamptz);
INSERT INTO django_migrations (app, name, applied) VALUES ('auth', '0001_initial', now()),
  ('wards', '0001_initial', now()), ('wards', '0002_beds', now());
"""
ROWS = {
    "public.patients": 1000,
    '"We ird.""S"."Tab le-é😀"': 77,
    "public.visits_2025": 365,
    "public.visits_2026": 335,
    "public.scratchpad": 12,
    "public.parent": 1,
    "public.child": 2,
    "public.blobs": 50,
    "public.django_migrations": 3,
}


def odd_database(instance: Instance, name: str = "hospital") -> str:
    """A database with what usually goes missing."""
    quoted = name.replace('"', '""')
    instance.sql(f'CREATE DATABASE "{quoted}" TEMPLATE template0')
    with_file(instance, name, ODD)
    return name


def with_file(instance: Instance, dbname: str, text: str) -> str:
    """Run a script in one session."""
    return instance.sql(text, dbname="dbname='" + dbname.replace("\\", "\\\\").replace("'", "\\'") + "'")


def big_table(instance: Instance, dbname: str, *, name: str = "notes", megabytes: int = 30) -> None:
    """A table whose dump takes a while: text that compresses badly, and a last row whose text is kept beside it.

    `held.unread` holds a dump at that row.
    """
    rows = megabytes * 1024
    instance.sql(
        f"CREATE TABLE {name} AS SELECT n AS id, (SELECT string_agg(md5((n * 32 + i)::text), '')"
        f" FROM generate_series(1, 32) i) AS body FROM generate_series(1, {rows - 1}) n;"
        f" ALTER TABLE {name} ALTER body SET STORAGE EXTERNAL; INSERT INTO {name} VALUES ({rows}, repeat('x', 10000))",
        dbname=dbname,
    )


@dataclasses.dataclass(frozen=True)
class Keys:
    """A GnuPG home with key pairs, as it would be on the operators' machine."""

    home: pathlib.Path

    def gpg(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Plain gpg with that home."""
        done = subprocess.run(
            ["gpg", "--homedir", str(self.home), "--batch", "--no-tty", "--quiet", *arguments],
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def make(self, address: str, *, expires: str = "never") -> pathlib.Path:
        """A key pair; the file with its public half."""
        self.gpg("--passphrase", "", "--quick-generate-key", f"Test <{address}>", "default", "default", expires)
        path = self.home / f"{address}.asc"
        path.write_bytes(self.gpg("--armor", "--export", address))
        return path

    def close(self) -> None:
        """End its agent."""
        run("gpgconf", "--homedir", str(self.home), "--kill", "all", check=False)


@contextlib.contextmanager
def keys_in(folder: pathlib.Path) -> t.Iterator[Keys]:
    """Keys of their own for a test."""
    home = folder / "gnupg"
    home.mkdir(mode=0o700)
    keys = Keys(home)
    try:
        yield keys
    finally:
        keys.close()


@dataclasses.dataclass
class Site:
    """A server with a database, a store, and the wish that most tests start from."""

    instance: Instance
    folder: pathlib.Path
    database: str = "hospital"
    store: pathlib.Path = pathlib.Path()

    def __post_init__(self) -> None:
        self.store = self.folder / "store"
        self.store.mkdir(parents=True, exist_ok=True)

    @property
    def state(self) -> pathlib.Path:
        """Where records and locks are."""
        return self.folder / "state"

    def arguments(self, **changes: t.Any) -> dict[str, t.Any]:
        """The module's arguments."""
        return {
            "cluster": "hospital",
            "environment": "testing",
            "database": self.database,
            "login_host": str(self.instance.sockets),
            "login_port": self.instance.port,
            "store": {"folder": str(self.store)},
            "state_dir": str(self.state),
            "lock_timeout": 60.0,
            "timeout": 300.0,
            **changes,
        }

    def backup(self, *, check_mode: bool = False, **changes: t.Any) -> Result:
        """Make one, in this process."""
        wish = wish_from(self.arguments(**changes))
        return backup(wish, check_mode=check_mode, runner=SystemRunner(), clock=SystemClock(), by="test")

    def start_module(self, *, prefix: t.Sequence[str] = (), **changes: t.Any) -> subprocess.Popen[bytes]:
        """Run the module in a process of its own, as Ansible would: a leader of its session."""
        arguments = {"ANSIBLE_MODULE_ARGS": self.arguments(**changes)}
        with open(self.folder / "module.out", "wb") as output:
            return subprocess.Popen(
                [*prefix, sys.executable, "-m", "ansible_collections.hms.postgres.plugins.modules.pg_backup"],
                stdin=_pipe_with(json.dumps(arguments).encode()),
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT / ".collections"), "LC_ALL": "C.UTF-8"},
                start_new_session=True,
            )

    def module_output(self) -> dict[str, t.Any]:
        """What the module printed, parsed."""
        text = (self.folder / "module.out").read_text(encoding="utf-8")
        found: dict[str, t.Any] = json.loads(text[text.index("{") :])
        return found

    def manifests(self) -> list[dict[str, t.Any]]:
        """Every manifest in the store, oldest first."""
        return [json.loads(path.read_bytes()) for path in sorted(self.store.rglob("manifest.json"))]

    def members(self, identifier: str) -> pathlib.Path:
        """The folder of one backup."""
        (found,) = self.store.rglob(identifier)
        return found

    def loose(self) -> list[str]:
        """Files in the store that belong to no backup."""
        whole = {path.parent for path in self.store.rglob("manifest.json")}
        return [
            str(path.relative_to(self.store))
            for path in self.store.rglob("*")
            if path.is_file() and path.parent not in whole and path.name != CATALOG
        ]


def _pipe_with(data: bytes) -> int:
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    return reader


DECOMPRESS = {".zst": ("zstd", "-d", "-q", "-c"), ".gz": ("gunzip", "-c"), ".lz4": ("lz4", "-d", "-q", "-c")}


def plain(path: pathlib.Path, decrypt: t.Callable[[bytes], bytes] | None = None) -> bytes:
    """What a member holds, taken out by the plain programs."""
    data, suffixes = path.read_bytes(), path.suffixes
    if suffixes[-1] == ".gpg":
        assert decrypt is not None
        data = decrypt(data)
        suffixes = suffixes[:-1]
    if suffixes[-1] in DECOMPRESS:
        done = subprocess.run(DECOMPRESS[suffixes[-1]], input=data, capture_output=True, timeout=100, check=True)
        data = done.stdout
    return data


def with_passphrase(folder: pathlib.Path, passphrase: str = PASSPHRASE) -> t.Callable[[bytes], bytes]:
    """Plain gpg with a passphrase, as on any machine."""
    home = folder / "gnupg-reader"
    home.mkdir(mode=0o700, exist_ok=True)

    def decrypt(data: bytes) -> bytes:
        argv = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback"]
        reader = _pipe_with(passphrase.encode() + b"\n")
        try:
            done = subprocess.run(
                [*argv, "--passphrase-fd", str(reader), "-d"],
                input=data,
                capture_output=True,
                pass_fds=(reader,),
                timeout=100,
                check=False,
            )
        finally:
            os.close(reader)
            run("gpgconf", "--homedir", str(home), "--kill", "all", check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    return decrypt


def restore(instance: Instance, archive: bytes, dbname: str) -> None:
    """pg_restore of an archive into a fresh database."""
    path = instance.folder / f"{dbname}.dump"
    path.write_bytes(archive)
    path.chmod(0o644)
    instance.sql(f"CREATE DATABASE {dbname} TEMPLATE template0")
    where = ("-h", str(instance.sockets), "-p", str(instance.port))
    as_postgres(str(BINARIES / "pg_restore"), "--exit-on-error", *where, "-d", dbname, str(path))
    path.unlink()


def drop(instance: Instance, *names: str) -> None:
    """Remove databases."""
    for name in names:
        quoted = name.replace('"', '""')
        instance.sql(f'DROP DATABASE IF EXISTS "{quoted}" WITH (FORCE)')


def dump_text(instance: Instance, dbname: str) -> str:
    """The whole database as SQL text, for comparison; what changes from call to call is taken out."""
    where = ("-h", str(instance.sockets), "-p", str(instance.port))
    quoted = "dbname='" + dbname.replace("\\", "\\\\").replace("'", "\\'") + "'"
    text = as_postgres(str(BINARIES / "pg_dump"), *where, "-d", quoted)
    return "\n".join(line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict")))


def sha256(path: pathlib.Path) -> str:
    """By sha256sum."""
    return run("sha256sum", str(path)).split()[0]


def digest_of(store: pathlib.Path) -> dict[str, str]:
    """Every file of a store and its content's digest."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in store.rglob("*")
        if path.is_file() and path.name != CATALOG
    }


def descendants(pid: int) -> set[int]:
    """Every living process that descends from `pid`."""
    parents: dict[int, int] = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = {pid}
    while True:
        more = {child for child, parent in parents.items() if parent in found and child not in found}
        if not more:
            return found - {pid}
        found |= more


def command_line(pid: int) -> str:
    """A process's arguments, '' when it is gone."""
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    return ""


def stage_pid(parent: int, program: str) -> int | None:
    """The living process of a stage, by the name of its program; one that is only asked for its version is none."""
    for pid in descendants(parent):
        with contextlib.suppress(OSError):
            named = os.path.basename(os.readlink(f"/proc/{pid}/exe")) == program
            arguments = command_line(pid)
            if named and arguments and "--version" not in arguments.split() and process_alive(pid):
                return pid
    return None


def remnants_in_memory(pid: int) -> list[pathlib.Path]:
    """Folders with keys in memory that a process has made."""
    return [path for place in ("/run", "/dev/shm") for path in pathlib.Path(place).glob(f"hms-postgres-{pid}-*")]


def remove_tree(path: pathlib.Path) -> None:
    """Remove a folder with everything in it."""
    shutil.rmtree(path, ignore_errors=True)
