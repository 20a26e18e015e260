# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Dumps into a folder and back, in every combination of compression and encryption; then damaged in many ways.

What is stored is read by plain gpg, the compressors' own programs and pg_restore.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import re
import subprocess
import time
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact.keys import (
    Keyring,
    prepare_keyring,
    reading_keyring,
)
from ansible_collections.hms.postgres.plugins.module_utils._artifact.manifest import Member
from ansible_collections.hms.postgres.plugins.module_utils._artifact.model import Compression, Encryption
from ansible_collections.hms.postgres.plugins.module_utils._artifact.streams import store_stream, suffix
from ansible_collections.hms.postgres.plugins.module_utils._artifact.verify import MemberCheck, verify_member
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._postgres import ConnectionParams
from ansible_collections.hms.postgres.plugins.module_utils._store.model import FolderSpec, ObjectStore
from ansible_collections.hms.postgres.plugins.module_utils._store.open_store import open_store
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_dump import PgDump
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_dumpall import PgDumpAll
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_restore import PgRestore
from ansible_collections.hms.postgres.tests.real.gpg_site import Operator
from ansible_collections.hms.postgres.tests.real.lab import BINARIES, OS_USER, Instance, Lab, as_postgres, run

COMPRESSIONS = ("zstd", "gzip", "lz4", "none")
ENCRYPTIONS = ("public_key", "passphrase", "none")
SECRET = "geheim ünd läng"
DATABASE = "We ird \"=' é😀"
KEY = "c/d/i/"
PLAIN_PROGRAMS = {"zst": ["zstd", "-dc"], "gz": ["gunzip", "-c"], "lz4": ["lz4", "-dc"]}
RESTORE = PgRestore(str(BINARIES / "pg_restore"), os_user=OS_USER)
LARGE_OBJECTS = 3


@pytest.fixture(scope="module")
def server(module_lab: Lab) -> Instance:
    """A database with odd names and large objects."""
    instance = module_lab.primary()
    instance.sql(f"""CREATE DATABASE "{DATABASE.replace('"', '""')}" """)
    as_postgres("psql", "-Xq", "-h", str(instance.sockets), "-p", str(instance.port), "-c", "SELECT 1", conninfo())
    for statement in (
        'CREATE SCHEMA "Od d"',
        'CREATE TABLE "Od d"."Ta ble-é😀" AS SELECT n, md5(n::text) AS note FROM generate_series(1, 60000) AS n',
        f"SELECT lo_from_bytea(0, decode(repeat('beef', 1000), 'hex')) FROM generate_series(1, {LARGE_OBJECTS})",
        'CREATE VIEW all_of_it AS SELECT * FROM "Od d"."Ta ble-é😀"',
    ):
        instance.sql(statement, dbname=conninfo())
    return instance


def conninfo() -> str:
    escaped = DATABASE.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"


def connection(server: Instance) -> ConnectionParams:
    return ConnectionParams(host=str(server.sockets), port=server.port, dbname=DATABASE)


@pytest.fixture(scope="module")
def operator() -> t.Iterator[Operator]:
    """Who will restore it one day."""
    made = Operator()
    try:
        made.make("ops@example.org")
        yield made
    finally:
        made.close()


def encryption_of(operator: Operator, method: str) -> Encryption:
    return {
        "public_key": Encryption(("ops@example.org",), (operator.export("ops@example.org"),)),
        "passphrase": Encryption(passphrase=SECRET),
        "none": Encryption(),
    }[method]


@dataclasses.dataclass(frozen=True)
class Stored:
    """A member in a folder, and what reads it."""

    store: ObjectStore
    path: pathlib.Path
    member: Member
    ring: Keyring

    def check(self, member: Member | None = None, ring: Keyring | None = None) -> MemberCheck:
        """Verify it."""
        wanted = member or self.member
        until = time.monotonic() + 60.0
        key = KEY + wanted.name
        return verify_member(self.store, key, wanted, ring or self.ring, pg_restore=RESTORE, deadline=until)


@pytest.fixture(scope="module", params=[(c, e) for c in COMPRESSIONS for e in ENCRYPTIONS], ids="-".join)
def stored(
    request: pytest.FixtureRequest, server: Instance, operator: Operator, tmp_path_factory: pytest.TempPathFactory
) -> t.Iterator[Stored]:
    """A dump, stored."""
    method, how = request.param
    root = tmp_path_factory.mktemp("store")
    encryption, compression = encryption_of(operator, how), Compression(method)
    with prepare_keyring(encryption, runner=SystemRunner(), ephemeral=True) as ring:
        store = open_store(FolderSpec(str(root)))
        name = "data.dump" + suffix(compression, encryption)
        writer = store.create(KEY + name)
        made = store_stream(
            PgDump(str(BINARIES / "pg_dump"), os_user=OS_USER).stage(connection(server), lock_timeout=10.0),
            compression=compression,
            keyring=ring,
            writer=writer,
            deadline=time.monotonic() + 60.0,
            os_user=OS_USER,
        )
        writer.commit()
        yield Stored(store, root / KEY / name, Member("data", name, made.bytes, made.sha256), ring)


def plainly_read(operator: Operator, path: pathlib.Path) -> bytes:
    """What somebody gets out of it who has nothing but the programs of any host."""
    data = path.read_bytes()
    name = path.name
    if name.endswith(".gpg"):
        data = operator.gpg("--passphrase", SECRET, "--decrypt", data=data)
        name = name[: -len(".gpg")]
    program = PLAIN_PROGRAMS.get(name.rpartition(".")[2])
    return subprocess.run(program, input=data, capture_output=True, check=True).stdout if program else data


def as_sql(archive: bytes, tmp_path: pathlib.Path) -> str:
    """An archive as SQL, without what is different each time."""
    path = tmp_path / "plain.dump"
    path.write_bytes(archive)
    return re.sub(
        r"^\\(un)?restrict .*$", "", run(str(BINARIES / "pg_restore"), "-f", "-", str(path)), flags=re.MULTILINE
    )


def test_it_holds_and_plain_programs_read_it(
    stored: Stored, server: Instance, operator: Operator, tmp_path: pathlib.Path
) -> None:
    found = stored.check()
    assert found.problems == ()
    archive = plainly_read(operator, stored.path)
    assert (found.plain_bytes, found.plain_sha256) == (len(archive), hashlib.sha256(archive).hexdigest())
    assert stored.member.sha256 == hashlib.sha256(stored.path.read_bytes()).hexdigest()
    sql = as_sql(archive, tmp_path)
    listed = run(str(BINARIES / "pg_restore"), "-l", str(tmp_path / "plain.dump"))
    assert f"TOC Entries: {found.entries}" in listed
    assert listed.count(" BLOB - ") == LARGE_OBJECTS
    assert f"dbname: {DATABASE}\n" in listed
    where = ("-h", str(server.sockets), "-p", str(server.port), "-d", conninfo())
    direct = as_postgres(str(BINARIES / "pg_dump"), "-Fp", *where)
    data = [line for line in direct.splitlines() if "\t" in line]
    assert [line for line in sql.splitlines() if "\t" in line] == data
    assert len(data) == 60000


def places(size: int) -> list[int]:
    """Where to hurt it."""
    return [0, 3, 20, size // 3, size // 2, size - 30, size - 1]


def test_every_damage_is_noticed(stored: Stored) -> None:
    """By its hash, wherever it is, and with whatever else the programs have to say."""
    whole = stored.path.read_bytes()
    try:
        for place in places(len(whole)):
            hurt = bytearray(whole)
            hurt[place] ^= 0x10
            stored.path.write_bytes(hurt)
            assert "SHA-256 differs" in stored.check().problems[0], f"a bit flipped in byte {place}"
        for size in (0, 1, len(whole) // 2, len(whole) - 1):
            stored.path.write_bytes(whole[:size])
            assert f"{size} bytes are stored" in stored.check().problems[0], f"cut to {size} bytes"
        stored.path.write_bytes(whole + b"\0")
        assert stored.check().problems, "something added"
        stored.path.write_bytes(whole[:1000] + b"\0" * 4096 + whole[5096:])
        assert stored.check().problems, "a block of zeros"
    finally:
        stored.path.write_bytes(whole)
    assert stored.check().problems == ()


def test_damage_under_a_hash_that_fits_is_noticed_by_the_programs(stored: Stored) -> None:
    """As if the bytes were damaged before they were hashed. Only what has neither checksum nor cipher hides a bit."""
    whole = stored.path.read_bytes()

    def check(data: bytes) -> tuple[str, ...]:
        stored.path.write_bytes(data)
        believed = dataclasses.replace(stored.member, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        found = stored.check(believed)
        assert found.plain_sha256 is None or not found.problems
        return found.problems

    try:
        for size in (0, 1, len(whole) // 3, len(whole) * 9 // 10, len(whole) - 40):
            assert check(whole[:size]), f"cut to {size} bytes"
        if stored.member.name != "data.dump":
            for place in (len(whole) // 3, len(whole) // 2, len(whole) * 9 // 10):
                hurt = bytearray(whole)
                hurt[place] ^= 0x01
                assert check(bytes(hurt)), f"a bit flipped in byte {place}"
    finally:
        stored.path.write_bytes(whole)


def test_a_wrong_key_is_told_from_damage(stored: Stored, operator: Operator) -> None:
    if ".gpg" not in stored.member.name:
        assert stored.check(ring=Keyring("none")).problems == ()
        return
    runner = SystemRunner()
    if stored.ring.method == "passphrase":
        with reading_keyring(Encryption(passphrase="another"), runner=runner) as ring:
            problems = stored.check(ring=ring).problems
        assert len(problems) == 1
        assert "the passphrase is not the one it was encrypted with" in problems[0]
        return
    other = operator.export(operator.make(f"other{time.monotonic_ns()}@example.org"), secret=True)
    with reading_keyring(Encryption(key_files=(other,)), runner=runner) as ring:
        problems = stored.check(ring=ring).problems
    assert len(problems) == 1
    assert "none of the private keys here can decrypt it" in problems[0]


def test_the_globals_have_passwords_only_when_asked_for(server: Instance, tmp_path: pathlib.Path) -> None:
    server.sql("CREATE ROLE nurse LOGIN PASSWORD 'not in the dump'")
    store = open_store(FolderSpec(str(tmp_path)))
    program = PgDumpAll(str(BINARIES / "pg_dumpall"), os_user=OS_USER)
    for passwords in (False, True):
        name = f"globals.{passwords}.sql"
        writer = store.create(KEY + name)
        made = store_stream(
            program.globals_stage(connection(server), passwords=passwords),
            compression=Compression("none"),
            keyring=Keyring("none"),
            writer=writer,
            deadline=time.monotonic() + 60.0,
        )
        writer.commit()
        text = (tmp_path / KEY / name).read_text()
        assert "CREATE ROLE nurse" in text
        assert ("SCRAM-SHA-256" in text) is passwords
        member = Member("globals", name, made.bytes, made.sha256)
        until = time.monotonic() + 60.0
        assert verify_member(store, KEY + name, member, None, pg_restore=RESTORE, deadline=until).problems == ()
