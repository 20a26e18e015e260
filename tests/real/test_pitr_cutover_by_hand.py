# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back from a cutover by hand: the commands of docs/pitr-cutover.md, word for word."""

from __future__ import annotations

import re

from ansible_collections.hms.postgres.tests.real import cutover_site
from ansible_collections.hms.postgres.tests.real.cutover_site import CutoverSite, recover
from ansible_collections.hms.postgres.tests.real.engine_hosts import HERE
from ansible_collections.hms.postgres.tests.real.lab import OS_USER, VERSION, run

site = cutover_site.alone


def by_hand(site: CutoverSite) -> list[str]:
    """The commands that the document gives for the way back, for the paths of this site."""
    text = (HERE.parents[1] / "docs" / "pitr-cutover.md").read_text()
    blocks: list[str] = [
        block for block in re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if "standby.signal" in block
    ]
    (block,) = blocks
    db1 = site.db1
    where = f"runuser -u {OS_USER} -- psql -h {db1.instance.sockets} -p {db1.port}"
    for named, real in (
        ("/var/lib/postgresql/15/main.before_20250622T120000Z", str(site.kept()[-1])),
        ("/var/lib/postgresql/15/main", str(db1.data)),
        ("/var/lib/hms-postgres/hospital", str(db1.state)),
        ("pg_ctlcluster 15 main", f"pg_ctlcluster {VERSION} {db1.instance.name}"),
        ("sudo -u postgres psql", where),
    ):
        assert named in block
        block = block.replace(named, real)
    return block.splitlines()


def test_the_kept_directory_is_put_back_by_what_the_document_says(site: CutoverSite) -> None:
    recover(site)
    site.cutover()
    timeline = site.timeline()
    assert not site.has_harm()
    for command in by_hand(site):
        run("bash", "-c", command)
    assert site.has_harm()
    assert site.timeline() == timeline + 1
    assert not [line for line in site.db1.auto_conf() if "recovery_target" in line]
    name = site.db1.sql("SELECT pg_walfile_name(pg_switch_wal())")
    site.archived(name)
    site.archived(f"{timeline + 1:08X}.history")
