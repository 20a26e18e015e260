# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab itself: a primary, a standby and a pooler work together, and nothing is left of them."""

from __future__ import annotations

import pathlib

from ansible_collections.hms.postgres.tests.real import server_memory
from ansible_collections.hms.postgres.tests.real.conftest import PgFactory, PoolerFactory, StandbyFactory
from ansible_collections.hms.postgres.tests.real.lab import Lab, listed_instances, until


def test_a_site_in_small(pg_factory: PgFactory, make_standby: StandbyFactory, pgbouncer_factory: PoolerFactory) -> None:
    primary = pg_factory()
    standby = make_standby(primary)
    pooler = pgbouncer_factory({"site": f"host=127.0.0.1 port={primary.port} dbname=postgres"})
    primary.sql("CREATE TABLE seen (id int)")
    primary.sql("INSERT INTO seen VALUES (1)")
    until(lambda: "seen" in standby.sql("SELECT relname FROM pg_class WHERE relname = 'seen'"), "the table arrives")
    until(lambda: standby.sql("SELECT count(*) FROM seen") == "1", "its row arrives")
    assert standby.sql("SELECT pg_is_in_recovery()") == "t"
    assert "site" in pooler.console("SHOW DATABASES")
    primary.kill()
    assert primary.pid is None
    standby.promote()
    assert standby.sql("SELECT count(*) FROM seen") == "1"


def test_nothing_is_left(real_servers: None) -> None:  # noqa: ARG001  asked for its effect
    lab = Lab()
    made, killed = lab.primary(), lab.primary()
    pid = made.pid
    memory = {server_memory.noted(each.data / "postmaster.pid") for each in (made, killed)}
    assert len(memory - {None}) == 2
    killed.kill()
    kept = killed.data.rename(killed.folder / "kept")
    assert server_memory.noted(kept / "postmaster.pid") in server_memory.unused()
    lab.close()
    assert not memory & server_memory.unused()
    assert made.name not in [line[1] for line in listed_instances()]
    assert not made.folder.exists()
    assert not made.config.exists()
    assert not pathlib.Path(f"/proc/{pid}/cwd").exists()
