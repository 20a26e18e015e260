# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real keys, good and bad; real agents, of which none may stay."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact.gpg_home import sweep
from ansible_collections.hms.postgres.plugins.module_utils._artifact.keys import (
    Keyring,
    prepare_keyring,
    reading_keyring,
)
from ansible_collections.hms.postgres.plugins.module_utils._artifact.model import Compression, Encryption
from ansible_collections.hms.postgres.plugins.module_utils._artifact.streams import read_stages, source_of, store_bytes
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._errors import Refused, ToolFailed
from ansible_collections.hms.postgres.plugins.module_utils._pipeline import Pipeline
from ansible_collections.hms.postgres.tests.real.gpg_site import Operator, homes_of, processes_with, run_homes
from ansible_collections.hms.postgres.tests.real.lab import BINARIES, OS_USER, until

RUNNER = SystemRunner()
SECRET = "geheim ünd läng"


@pytest.fixture(scope="module")
def operator() -> t.Iterator[Operator]:
    """Somebody with keys of every kind."""
    made = Operator()
    try:
        made.make("ops@example.org")
        made.make("escrow@example.org", expires="10d")
        made.make("locked@example.org", passphrase=SECRET)
        made.make("signer@example.org", usage="")
        made.make("expired@example.org", expires="seconds=1")
        made.revoke(made.make("revoked@example.org"))
        until(lambda: made.validity("expired@example.org") == "e", "the key has expired")
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def _nothing_stays() -> t.Iterator[None]:
    """No agent, no folder."""
    yield
    assert run_homes(os.getpid()) == set()
    assert ours() == {}


def ours() -> dict[int, str]:
    """Our programs that work with a home of ours: gpg, and its agent."""
    return processes_with(homes_of(os.getpid()))


def to(operator: Operator, *addresses: str) -> Encryption:
    return Encryption(recipients=addresses, key_files=tuple(operator.export(address) for address in addresses))


class Kept:
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def encrypted(ring: Keyring, data: bytes) -> bytes:
    writer = Kept()
    store_bytes(data, compression=Compression("none"), keyring=ring, writer=writer, deadline=time.monotonic() + 60.0)
    return writer.data


def decrypted(ring: Keyring, data: bytes) -> bytes:
    kept = Kept()
    stages = read_stages("x.gpg", ring)
    Pipeline(stages, deadline=time.monotonic() + 60.0).feed(source_of(data), kept.write)
    return kept.data


def test_recipients_can_read_it_and_so_can_the_run_until_its_key_is_gone(operator: Operator) -> None:
    encryption = to(operator, "ops@example.org", "escrow@example.org")
    with prepare_keyring(encryption, runner=RUNNER, ephemeral=True) as ring:
        stored = encrypted(ring, b"the payload")
        assert ring.fingerprints == tuple(map(operator.fingerprint, encryption.recipients))
        assert len(ring.warnings) == 1
        assert "escrow@example.org expires on 20" in ring.warnings[0]
        readable = [ring.can_decrypt]
        assert decrypted(ring, stored) == b"the payload"
        assert len(ours()) == 1, "the agent"
        ring.destroy_private()
        assert [*readable, ring.can_decrypt] == [True, False]
        assert ours() == {}
        with pytest.raises(ToolFailed):
            decrypted(ring, stored)
        stored_later = encrypted(ring, b"more")
    assert operator.gpg("--decrypt", data=stored) == b"the payload"
    assert operator.gpg("--decrypt", data=stored_later) == b"more"


def test_without_a_key_of_its_own_the_host_cannot_read_it(operator: Operator) -> None:
    with prepare_keyring(to(operator, "ops@example.org"), runner=RUNNER, ephemeral=False) as ring:
        stored = encrypted(ring, b"the payload")
        assert not ring.can_decrypt
        assert ours() == {}, "no agent is needed"
        with pytest.raises(ToolFailed, match="No secret key"):
            decrypted(ring, stored)


def test_recipients_by_fingerprint(operator: Operator) -> None:
    fingerprint = operator.fingerprint("ops@example.org")
    written = f"0x{fingerprint[:20].lower()} {fingerprint[20:]}"
    encryption = Encryption(recipients=(written,), key_files=(operator.export("ops@example.org"),))
    with prepare_keyring(encryption, runner=RUNNER, ephemeral=False) as ring:
        assert ring.fingerprints == (fingerprint,)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("signer@example.org", "recipient_cannot_encrypt"),
        ("expired@example.org", "recipient_expired"),
        ("revoked@example.org", "recipient_revoked"),
    ],
)
def test_a_key_that_cannot_be_used_is_refused_beforehand(operator: Operator, address: str, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        prepare_keyring(to(operator, "ops@example.org", address), runner=RUNNER, ephemeral=True)
    assert caught.value.reason == reason
    assert address in caught.value.message


def test_an_unknown_recipient_is_refused(operator: Operator) -> None:
    encryption = Encryption(recipients=("nobody@example.org",), key_files=(operator.export("ops@example.org"),))
    with pytest.raises(Refused) as caught:
        prepare_keyring(encryption, runner=RUNNER, ephemeral=True)
    assert caught.value.reason == "recipient_unknown"


def test_a_private_key_has_no_business_on_the_host(operator: Operator) -> None:
    path = operator.export("ops@example.org", secret=True)
    with pytest.raises(Refused) as caught:
        prepare_keyring(Encryption(("ops@example.org",), (path,)), runner=RUNNER, ephemeral=True)
    assert caught.value.reason == "private_key_given"


def test_key_files_that_are_none(operator: Operator, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "key.asc"
    for content in (None, b"", b"hello", pathlib.Path(operator.export("ops@example.org")).read_bytes()[:300]):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(Refused) as caught:
            prepare_keyring(Encryption(("ops@example.org",), (str(path),)), runner=RUNNER, ephemeral=True)
        assert caught.value.reason == "key_file_unreadable"


def test_a_passphrase_reads_it_anywhere(operator: Operator) -> None:
    with prepare_keyring(Encryption(passphrase=SECRET), runner=RUNNER, ephemeral=True) as ring:
        stored = encrypted(ring, b"the payload")
        assert decrypted(ring, stored) == b"the payload"
        assert ours() == {}, "no agent is needed"
    assert operator.gpg("--passphrase", SECRET, "--decrypt", data=stored) == b"the payload"
    packets = operator.gpg("--passphrase", SECRET, "--list-packets", data=stored).decode()
    assert re.search(r"cipher 9,.*s2k 3, hash 10", packets), "AES256, SHA512"
    assert "count 65011712" in packets


def test_a_wrong_passphrase_is_told_from_damage() -> None:
    with prepare_keyring(Encryption(passphrase=SECRET), runner=RUNNER, ephemeral=True) as ring:
        stored = encrypted(ring, b"the payload")
    with reading_keyring(Encryption(passphrase=SECRET + "!"), runner=RUNNER) as ring:
        assert ring.can_read({"method": "passphrase"})
        with pytest.raises(ToolFailed, match="Bad session key"):
            decrypted(ring, stored)


def test_a_passphrase_is_seen_by_nobody() -> None:
    seen: list[str] = []
    with prepare_keyring(Encryption(passphrase=SECRET), runner=RUNNER, ephemeral=True) as ring:
        stage = ring.encrypt_stage()
        assert stage is not None

        def look(_data: bytes) -> None:
            seen.extend(processes_with("--passphrase-fd").values())

        assert SECRET not in repr(stage)
        chunks = [bytes(500_000)] * 4
        Pipeline([stage], deadline=time.monotonic() + 60.0).feed(lambda _size: chunks.pop() if chunks else b"", look)
        assert len(seen) > 0
        assert not [arguments for arguments in seen if "geheim" in arguments]
        home = (
            ring.describe(),
            [path.read_bytes() for path in pathlib.Path(run_homes(os.getpid()).pop()).rglob("*") if path.is_file()],
        )
        assert SECRET.encode() not in b"".join(home[1])


@pytest.mark.parametrize("who", ["ops@example.org", "locked@example.org"])
def test_whoever_has_the_private_key_reads_it(operator: Operator, who: str) -> None:
    with prepare_keyring(to(operator, "ops@example.org", "locked@example.org"), runner=RUNNER, ephemeral=True) as ring:
        stored = encrypted(ring, b"the payload")
        described = ring.describe()
    passphrase = SECRET if who.startswith("locked") else ""
    private = operator.export(who, secret=True, passphrase=passphrase)
    with reading_keyring(Encryption(key_files=(private,), passphrase=passphrase or None), runner=RUNNER) as ring:
        assert ring.can_read(described)
        assert decrypted(ring, stored) == b"the payload"


def test_another_private_key_does_not(operator: Operator) -> None:
    with prepare_keyring(to(operator, "ops@example.org"), runner=RUNNER, ephemeral=True) as ring:
        stored = encrypted(ring, b"the payload")
        described = ring.describe()
    private = operator.export("escrow@example.org", secret=True)
    with reading_keyring(Encryption(key_files=(private,)), runner=RUNNER) as ring:
        assert not ring.can_read(described)
        with pytest.raises(ToolFailed, match="No secret key"):
            decrypted(ring, stored)


def child(tmp_path: pathlib.Path, encryption: t.Mapping[str, t.Any], **more: t.Any) -> pathlib.Path:
    """The settings of a process that streams."""
    (tmp_path / "store").mkdir()
    settings = {
        "argv": ["/usr/bin/seq", "100000000"],
        "os_user": OS_USER,
        "compression": "zstd",
        "encryption": encryption,
        "folder": str(tmp_path / "store"),
        "pg_restore": str(BINARIES / "pg_restore"),
        **more,
    }
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(settings))
    return path


PROGRAM = str(pathlib.Path(__file__).with_name("streams_child.py"))


@pytest.mark.parametrize("moment", ["prepared", "flowing"])
def test_our_own_violent_end_leaves_no_agent_and_no_program(
    operator: Operator, tmp_path: pathlib.Path, moment: str
) -> None:
    """Its folder stays, in memory and readable by nobody else; the next run removes it."""
    public = operator.export("ops@example.org")
    encryption = {"recipients": ["ops@example.org"], "key_files": [public]}
    settings = child(tmp_path, encryption, hold=moment)
    run = subprocess.Popen([sys.executable, PROGRAM, str(settings)], stdout=subprocess.PIPE, text=True, cwd="/")
    assert run.stdout is not None
    try:
        line: dict[str, t.Any] = {}
        while line.get("event") != moment:
            line = json.loads(run.stdout.readline())
        (home,) = run_homes(run.pid)
        assert processes_with(home)
    finally:
        run.kill()
        run.wait(60.0)
        run.stdout.close()
    until(lambda: not processes_with(home), "its programs and its agent have ended")
    assert pathlib.Path(home).stat().st_mode & 0o777 == 0o700
    sweep_now(home)
    assert [
        path for path in (tmp_path / "store").rglob("*") if path.is_file() and not path.name.endswith(".part")
    ] == []


def sweep_now(home: str) -> None:
    """The next run, an hour later; in a place of its own, for others are at work where it was."""
    place = tempfile.mkdtemp(prefix="swept-", dir=pathlib.Path(home).parent)
    try:
        moved = shutil.move(home, place)
        assert sweep(place, now=lambda: time.time() + 3600) == [moved]
        assert os.listdir(place) == []
    finally:
        shutil.rmtree(place)


def test_the_host_s_own_python_and_its_python_gnupg_do_as_well(operator: Operator, tmp_path: pathlib.Path) -> None:
    public = operator.export("ops@example.org")
    encryption = {"recipients": ["ops@example.org"], "key_files": [public]}
    settings = child(tmp_path, encryption, argv=["/usr/bin/seq", "1000"])
    done = subprocess.run(
        ["/usr/bin/python3", "-W", "error", PROGRAM, str(settings)],
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["event"] == "done"
    assert "pg_restore ended with 1" in last["problems"][0], "numbers are no archive"
