# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Single tables brought back from a side cluster into the live database, which works on meanwhile."""

from __future__ import annotations

import dataclasses
import json
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._module import Result
from ansible_collections.hms.postgres.plugins.module_utils._pitr import rescue
from ansible_collections.hms.postgres.tests.real.lab import Lab
from ansible_collections.hms.postgres.tests.real.pgbackrest_site import Site, begin, make_site
from ansible_collections.hms.postgres.tests.real.pitr_site import History, Recovery

pytestmark = pytest.mark.timeout(300)

SCHEMA = """
CREATE TABLE patient (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL,
                      upper text GENERATED ALWAYS AS (upper(name)) STORED);
CREATE TABLE "We ird" (patient int REFERENCES patient, day date, note text, PRIMARY KEY (patient, day));
CREATE TABLE loose (text text);
INSERT INTO patient (name) SELECT 'p' || g FROM generate_series(1, 200) g;
INSERT INTO "We ird" SELECT g, '2026-01-01', E'tab\\t and \\\\ ' || g FROM generate_series(1, 200) g;
INSERT INTO loose VALUES ('a'), (NULL)
"""
HASH = "SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {} t"


@dataclasses.dataclass
class Hurt:
    """The live cluster after the harm, and a side cluster from before it."""

    site: Site
    recovery: Recovery
    hashes: dict[str, str]

    def rescue(self, *tables: str, mode: rescue.Mode = "copy", check_mode: bool = False) -> Result:
        """What is tested."""
        return rescue.rescued(self.recovery.order, tables, mode, self.recovery.world, check_mode=check_mode)

    def live(self, statement: str) -> str:
        """What psql answers from the live cluster."""
        return self.site.instance.sql(statement)


@pytest.fixture(scope="module")
def hurt(module_lab: Lab) -> t.Iterator[Hurt]:
    """Rows are deleted with those that refer to them; work goes on after it."""
    site = make_site(module_lab)
    begin(site)
    site.instance.sql(SCHEMA)
    site.backup(verify="none")
    history = History(site)
    hashes = {table: site.instance.sql(HASH.format(table)) for table in ("patient", '"We ird"', "loose")}
    bad = history.do('DELETE FROM "We ird" WHERE patient > 50; DELETE FROM patient WHERE id > 50; DROP TABLE loose')
    history.do("INSERT INTO patient (name) VALUES ('newcomer'); UPDATE patient SET name = 'changed' WHERE id = 1")
    recovery = Recovery(site, module_lab.folder / "side")
    recovery.to(lsn=bad.lsn_before, inclusive=False)
    yield Hurt(site, recovery, hashes)
    recovery.close()


def test_check_mode_counts_and_writes_nothing(hurt: Hurt) -> None:
    before = hurt.live("SELECT count(*) FROM pg_class"), hurt.live("SELECT count(*) FROM patient")
    planned = hurt.rescue('"We ird"', "patient", mode="missing_rows", check_mode=True)
    assert {one["table"]: one["rows"] for one in planned.values["rescued"]} == {"patient": 150, '"We ird"': 150}
    assert planned.changed
    assert hurt.rescue("patient", check_mode=True).values["rescued"][0]["rows"] == 200
    assert before == (hurt.live("SELECT count(*) FROM pg_class"), hurt.live("SELECT count(*) FROM patient"))


def test_a_copy_stands_beside_the_table(hurt: Hurt) -> None:
    made = hurt.rescue("patient", '"We ird"', "public.loose")
    assert made.changed
    assert [one["rows"] for one in made.values["rescued"]] == [200, 200, 2]
    weird = made.values["rescued"][1]["into"]
    assert weird.startswith('"public"."We ird_rescued_0_')
    assert hurt.live(HASH.format(weird)) == hurt.hashes['"We ird"']
    assert hurt.live(HASH.format(made.values["rescued"][2]["into"])) == hurt.hashes["loose"]
    assert hurt.live("SELECT count(*) FROM patient") == "51", "the table itself is as it was"
    again = hurt.rescue("patient", '"We ird"', "public.loose")
    assert not again.changed
    assert again.values["rescued"][0]["rows"] == 200


def test_rows_whose_parents_are_missing_are_refused_whole(hurt: Hurt) -> None:
    with pytest.raises(HmsError, match="foreign key") as failed:
        hurt.rescue('"We ird"', mode="missing_rows")
    assert "Key (" not in failed.value.message, "it would quote a patient"
    assert failed.value.state == "The live database is as it was."
    assert hurt.live('SELECT count(*) FROM "We ird"') == "50"


def test_missing_rows_come_back_parents_first(hurt: Hurt) -> None:
    made = hurt.rescue('"We ird"', "patient", mode="missing_rows")
    assert [(one["table"], one["rows"]) for one in made.values["rescued"]] == [("patient", 150), ('"We ird"', 150)]
    assert hurt.live(HASH.format('"We ird"')) == hurt.hashes['"We ird"']
    assert hurt.live("SELECT count(*) FROM patient") == "201"
    assert hurt.live("SELECT name, upper FROM patient WHERE id = 1") == "changed|CHANGED", "what is there stays"
    assert hurt.live("SELECT count(*) FROM patient WHERE name = 'newcomer'") == "1"
    again = hurt.rescue('"We ird"', "patient", mode="missing_rows")
    assert not again.changed


def test_a_table_without_a_key_has_no_missing_rows(hurt: Hurt) -> None:
    hurt.live("CREATE TABLE loose (text text)")
    with pytest.raises(Refused, match="no primary key") as refused:
        hurt.rescue("loose", mode="missing_rows")
    assert refused.value.reason == "no_primary_key"


def test_a_table_that_never_was(hurt: Hurt) -> None:
    with pytest.raises(Refused, match="no table nowhere in the side cluster"):
        hurt.rescue("nowhere")


def test_the_record_holds_numbers_and_no_patient(hurt: Hurt) -> None:
    records = sorted((hurt.site.folder / "records").glob("*-pitr-*.json"))
    documents = [json.loads(path.read_text()) for path in records]
    statuses = [document["outcome"]["status"] for document in documents]
    assert {"done", "failed", "refused"} <= set(statuses)
    assert "newcomer" not in "".join(path.read_text() for path in records)


def test_without_a_side_cluster_there_is_nothing_to_rescue(hurt: Hurt) -> None:
    hurt.recovery.absent()
    with pytest.raises(Refused, match="No side cluster is paused") as refused:
        hurt.rescue("patient")
    assert refused.value.reason == "not_recovered"
