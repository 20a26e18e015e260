# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the tests of rejoin have in common: divergence, the run, and what done means."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._cluster.rejoin import Rejoin, Request
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._errors import Refused
from ansible_collections.hms.postgres.plugins.module_utils._module import Result
from ansible_collections.hms.postgres.plugins.module_utils._provision.reclone import reclone
from ansible_collections.hms.postgres.tests.real.rejoin_site import Member, Site

ROOT = pathlib.Path(__file__).resolve().parents[2]


def rejoin(member: Member, *, check_mode: bool = False, **allowed: t.Any) -> Result:
    """Run the whole thing on one member."""
    request = dataclasses.replace(Request(str(member.config), by="test"), **allowed)
    runner, clock = SystemRunner(), SystemClock()
    recloner = functools.partial(reclone, runner=runner, clock=clock)
    return Rejoin(request, recloner=recloner, runner=runner, clock=clock).ensure(check_mode=check_mode)


def refusal(member: Member, **allowed: t.Any) -> Refused:
    """It must be refused."""
    with pytest.raises(Refused) as caught:
        rejoin(member, **allowed)
    return caught.value


def diverge(site: Site, *, slot: bool = True) -> tuple[Member, Member, list[str]]:
    """An asynchronous primary commits what its standby never gets, dies, and the standby is promoted."""
    old, new = site.members[:2]
    site.await_replay(new, old)
    if slot:  # as a failover does while it arms the candidate
        new.sql(f"SELECT pg_create_physical_replication_slot('{old.name}', true)")
    new.detach()
    lost = [
        old.sql(f"BEGIN; INSERT INTO patients VALUES ({5000 + n}, 'lost'); SELECT pg_current_xact_id(); COMMIT")
        for n in range(20)
    ]
    lost.append(old.sql("BEGIN; CREATE TABLE lost_table AS SELECT 1 id; SELECT pg_current_xact_id(); COMMIT"))
    old.kill()
    new.promote()
    new.sql("INSERT INTO patients VALUES (6000, 'after the failover')")
    old.fence()
    return old, new, lost


def assert_standby_of(old: Member, new: Member) -> None:
    """What done means, by psql on both sides."""
    assert old.sql("SELECT pg_is_in_recovery()") == "t"
    assert new.sql("SELECT pg_is_in_recovery()") == "f"
    receiver = old.sql("SELECT status, sender_port, slot_name FROM pg_stat_wal_receiver")
    assert receiver == f"streaming|{new.instance.port}|{old.name}"
    assert new.sql(f"SELECT active FROM pg_replication_slots WHERE slot_name = '{old.name}'") == "t"
    new.sql("CREATE TABLE IF NOT EXISTS marks (at timestamptz); INSERT INTO marks SELECT clock_timestamp()")
    Site.await_replay(old, new)
    content = "SELECT md5(string_agg(p::text, ',' ORDER BY id)) FROM patients p"
    assert old.sql(content) == new.sql(content)
    assert old.sql("SELECT count(*) FROM marks") == new.sql("SELECT count(*) FROM marks")
    assert not (old.state / "fence.json").exists()
    assert not (old.state / "rewind.in_progress").exists()
    assert (old.instance.config / "start.conf").read_text().split()[-1] == "manual"
    assert (old.instance.data / "standby.signal").exists()


def kept(old: Member) -> tuple[pathlib.Path, dict[str, t.Any]]:
    """The one folder of kept WAL, verified by our own SHA-256."""
    (folder,) = (old.state / "diverged").iterdir()
    dossier = json.loads((folder / "dossier.json").read_text())
    assert (folder / "dossier.json").stat().st_mode & 0o777 == 0o600
    for item in dossier["files"]:
        data = (folder / item["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (item["bytes"], item["sha256"])
    return folder, dossier


def diverge_much(site: Site, *, slot: bool = True) -> tuple[Member, Member, list[str]]:
    """Divergence with much to copy, so that there is a middle."""
    primary = site.members[0]
    primary.sql("CREATE TABLE bulk AS SELECT n, repeat('bulk', 200) AS filler FROM generate_series(1, 100000) n")
    path = primary.sql("SELECT pg_relation_filepath('bulk')")
    (primary.instance.folder / "bulk").write_text(path)
    primary.instance.sql("CHECKPOINT")
    old, new, lost = diverge(site, slot=slot)
    new.sql("UPDATE bulk SET filler = repeat('new!', 200)")
    new.instance.sql("CHECKPOINT")
    return old, new, lost
