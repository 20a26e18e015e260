# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Drills that ask a real Django application about what came back: as a user of its own, over a socket of its own."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._drill.instance import GUEST, Folder, Throwaway
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.tests.real.django_site import Application
from ansible_collections.hms.postgres.tests.real.drill_site import DrillSite, two_databases
from ansible_collections.hms.postgres.tests.real.lab import BINARIES, OS_USER, Instance, Lab, run

# a drill makes a server and asks an application
pytestmark = pytest.mark.timeout(300)

USER = "www-data"
"""A user that every Debian has, and that is not the server's."""


@pytest.fixture(scope="module")
def server(module_lab: Lab) -> Instance:
    """A server with the application's database, and another one."""
    instance = two_databases(module_lab)
    Application(module_lab.folder / "deployed").migrate(instance.sockets, instance.port, "hospital")
    instance.sql("INSERT INTO wards_ward (name) SELECT 'ward ' || n FROM generate_series(1, 9) n", dbname="hospital")
    return instance


@pytest.fixture
def site(server: Instance, tmp_path: pathlib.Path) -> t.Iterator[DrillSite]:
    """Backups of both databases in a store of the test's own."""
    made = DrillSite(server, tmp_path / "site")
    made.backup()
    made.backup(database="second")
    yield made
    assert not made.place.exists()
    roles = server.sql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'hms_drill%'")
    assert roles == "0", "the live server has nothing of it"


@pytest.fixture
def application(module_lab: Lab, request: pytest.FixtureRequest) -> Application:
    """The application as it lies on the drill's host."""
    return Application(module_lab.folder / request.node.name)


def django(application: Application, **changes: t.Any) -> dict[str, t.Any]:
    """The module's option."""
    return {
        "directory": str(application.folder),
        "os_user": USER,
        "environment_file": str(application.secrets),
        "url_variable": application.variable,
        "database": "hospital",
        **changes,
    }


def test_the_application_is_content(site: DrillSite, application: Application) -> None:
    """Its checks hold, no migration is missing, and it can write nothing and reach nothing else."""
    probe = application.folder / "wards" / "management" / "commands" / "check.py"
    probe.parent.mkdir(parents=True)
    probe.write_text(_PROBE.format(place=site.place))
    seen = application.folder / "seen"
    seen.mkdir()
    shutil.chown(seen, USER)
    done = site.drill(django=django(application))
    assert (seen / "it").read_text() == "as it should be"
    first, second = done.values["results"]
    assert first["django"] == {"check": "ok", "migrations": "ok", "pending": []}
    assert (second["database"], second["django"], second["ok"]) == ("second", {}, True)
    assert first["seconds"]["django"] > 0
    checks = {check["name"]: check for check in first["validations"]}
    assert (checks["django check"]["ok"], checks["django migrations"]["detail"]) == (True, "no migration is pending")
    assert done.warnings == []
    record = pathlib.Path(done.values["record"]).read_text()
    assert "not-to-be-seen" not in record + json.dumps(done.values)
    assert site.listed()[first["id"]]["restored_at"]


_PROBE = """\
import os, pwd
from django.core.management.commands.check import Command as Check
from django.db import connection, utils

class Command(Check):
    def handle(self, *arguments, **options):
        assert pwd.getpwuid(os.geteuid()).pw_name == "www-data"
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*), current_user, current_setting('is_superuser') FROM wards_ward")
            assert cursor.fetchone() == (9, "hms_drill_application", "off")
            for refused in ("DELETE FROM wards_ward", "SET transaction_read_only = off; DELETE FROM wards_ward"):
                try:
                    cursor.execute(refused)
                except utils.Error:
                    connection.rollback()
                else:
                    raise SystemExit("it may write")
        for name in ("data", "run", "hba.conf", "hms-restore-drill.json"):
            assert not os.access("{place}/" + name, os.R_OK), name
        with open("seen/it", "w") as target:
            target.write("as it should be")
        super().handle(*arguments, **options)
"""


def test_only_the_application_gets_to_its_socket(module_lab: Lab) -> None:
    """The server trusts the folders around the socket, whose mode is anybody's."""
    folder, clock = Folder(str(module_lab.folder / "guests")), SystemClock()
    instance = Throwaway(folder, os_user=OS_USER, runner=SystemRunner())
    mask = os.umask(0o077)
    try:
        instance.make(str(BINARIES), {}, {"cluster": "hospital"}, guest=USER)
        told = {
            user: run("runuser", "-u", user, "--", "psql", "-h", where, "-U", GUEST, "postgres", check=False)
            for user, where in ((USER, folder.app), ("nobody", folder.app), (OS_USER, folder.sockets))
        }
        seen = [run("runuser", "-u", USER, "--", "ls", path, check=False) for path in (folder.path, folder.app)]
    finally:
        os.umask(mask)
        folder.remove(clock)
    assert f'role "{GUEST}" does not exist' in told[USER]
    assert "Permission denied" in told["nobody"]
    assert "Peer authentication failed" in told[OS_USER]
    assert all("Permission denied" in text for text in seen)


def test_pending_migrations_are_told_and_fail_nothing(site: DrillSite, application: Application) -> None:
    """The code on the host is ahead of the backup: after a restore it would have to migrate."""
    application.evolve()
    done = site.drill(databases=["hospital"], django=django(application))
    (result,) = done.values["results"]
    assert (result["ok"], result["django"]["pending"]) == (True, ["wards.0002_ward_floor"])
    assert "wards.0002_ward_floor must run" in done.warnings[0]


def test_an_application_that_is_broken_fails_the_drill_and_spares_the_backup(
    site: DrillSite, application: Application
) -> None:
    """Its last words are told, without what its environment holds."""
    models = application.folder / "wards" / "models.py"
    models.write_text(models.read_text() + "\nraise RuntimeError('with not-to-be-seen in it')\n")
    error = site.failed(databases=["hospital"], django=django(application))
    (result,) = error.details["results"]
    assert (result["reason"], result["noted"]) == ("validation_failed", False)
    assert "manage.py check ended with 1: RuntimeError: with *** in it" in result["problems"][0]
    assert "not-to-be-seen" not in pathlib.Path(error.details["record"]).read_text()


def test_an_application_that_goes_elsewhere_is_found_out(site: DrillSite, application: Application) -> None:
    """Its settings name the live server in place of what they are told: its content word is worth nothing."""
    settings = application.folder / "site_settings.py"
    place = f"'{site.instance.sockets}'"
    text = settings.read_text() + f"\nDATABASES['default'].update(HOST={place}, PORT={site.instance.port})\n"
    settings.write_text(text + "DATABASES['default'].update(ENGINE='django.db.backends.sqlite3', NAME=':memory:')\n")
    (result,) = site.failed(databases=["hospital"], django=django(application)).details["results"]
    assert "did not connect to the throwaway instance" in result["problems"][0]
    assert result["noted"] is False


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"os_user": "root"}, "must not run with all rights"),
        ({"os_user": "nobody-of-that-name"}, "no user nobody-of-that-name"),
        ({"directory": "/nowhere"}, "no manage.py in /nowhere"),
    ],
)
def test_what_can_not_be_run_is_refused_before_anything(
    site: DrillSite, application: Application, changes: dict[str, t.Any], words: str
) -> None:
    with pytest.raises(HmsError, match=words):
        site.drill(django=django(application, **changes))
    assert not list(site.state.glob("records/*-drill-*"))
