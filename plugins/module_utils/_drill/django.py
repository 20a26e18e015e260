# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a Django application says of a database that came back: its checks, and the migrations it lacks. PRIVATE.

The application runs as a user of its own, gets to the throwaway instance by a socket of its own, as a role that may
read and nothing else. Whatever it says of itself, what it connected to is read in the throwaway server's log.
"""

from __future__ import annotations

import dataclasses
import os
import pwd
import re
import typing as t
import urllib.parse

from .._artifact.database import Connect
from .._command import CommandResult, CommandRunner
from .._errors import HmsError
from .._postgres import quote_identifier
from .instance import GUEST, PORT, Throwaway
from .model import Application

CHECK, MIGRATIONS = "django check", "django migrations"
CHECKS = (CHECK, MIGRATIONS)
"""Names of checks that say nothing against the bytes: the application may have its own faults."""
ENV = "/usr/bin/env"
_PENDING = re.compile(r"^(?P<name>\w+\.\w+)$", re.MULTILINE)
_LOG_LIMIT = 4 << 20
_FILE_LIMIT = 1 << 20
_TOLD = 300
_SECRET = 4
"""Values of the environment file that are shorter are no secrets; they would make holes in every text."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What it said. `problem` of either is '' where all is well."""

    check: str
    migrations: str
    pending: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, t.Any]:
        """As plain data."""
        return {"check": self.check or "ok", "migrations": self.migrations or "ok", "pending": list(self.pending)}

    def told(self) -> str:
        """One line for people."""
        wrong = "; ".join(text for text in (self.check, self.migrations) if text)
        return wrong or f"its checks hold, {self._pending()}"

    def _pending(self) -> str:
        if len(self.pending) == 1:
            return "1 migration is pending"
        return f"{len(self.pending)} migrations are pending" if self.pending else "no migration is pending"

    def checks(self) -> list[dict[str, t.Any]]:
        """As checks among the others."""
        detail = self.migrations or self._pending() + (f": {', '.join(self.pending[:10])}" if self.pending else "")
        return [
            {"name": CHECK, "database": "", "ok": not self.check, "detail": self.check or "no issues"},
            {"name": MIGRATIONS, "database": "", "ok": not self.migrations, "detail": detail},
        ]

    def warnings(self, backup: str) -> list[str]:
        """What the operator should know although all is well."""
        if not self.pending:
            return []
        return [f"The application here is ahead of {backup}: after a restore {', '.join(self.pending[:10])} must run."]


def read_environment(path: str) -> dict[str, str]:
    """The variables of a file as systemd reads them: ``NAME=value`` a line, quotes around a value, # for remarks."""
    try:
        with open(path, encoding="utf-8") as source:
            lines = source.read(_FILE_LIMIT).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _bad(f"The environment file {path} can't be read: {error}.") from error
    found = {}
    for line in lines:
        name, separator, value = line.strip().partition("=")
        if not separator or name.startswith("#"):
            continue
        value = value.strip()
        quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""
        found[name.removeprefix("export ").strip()] = value[1:-1] if quoted else value
    return found


def _bad(message: str) -> HmsError:
    return HmsError(message, reason="bad_application", phase="django", next_step="Correct django and run again.")


def pending_in(plan: str) -> tuple[str, ...]:
    """The migrations that ``migrate --plan`` names."""
    return tuple(match["name"] for match in _PENDING.finditer(plan.partition("Planned operations:")[2]))


def check_application(application: Application) -> None:
    """Refuse what can't be run, or must not be."""
    try:
        entry = pwd.getpwnam(application.os_user)
    except KeyError:
        raise _bad(f"django.os_user: this host has no user {application.os_user}.") from None
    if entry.pw_uid == 0:
        raise _bad("django.os_user is root: an application's code must not run with all rights.")
    if not os.path.isfile(os.path.join(application.directory, "manage.py")):
        raise _bad(f"There is no manage.py in {application.directory}.")


class Django:
    """manage.py of one application against one throwaway instance."""

    def __init__(
        self,
        application: Application,
        instance: Throwaway,
        runner: CommandRunner,
        connect: Connect,
        left: t.Callable[[], float],
    ) -> None:
        self._application = application
        self._instance = instance
        self._runner = runner
        self._connect = connect
        self._left = left
        self._secrets: tuple[str, ...] = ()

    def ask(self, database: str) -> Answer:
        """Run its checks and its plan of migrations; its faults are an answer, not an error."""
        check_application(self._application)
        self._let_in(database)
        environment = self._environment(database)
        checked = self._manage(environment, "check")
        planned = self._manage(environment, "migrate", "--plan", "--no-input")
        migrations = self._problem(planned)
        if not migrations and not self._came(database):
            migrations = (
                f"the application did not connect to the throwaway instance: it takes its database neither from "
                f"{self._application.url_variable} nor from libpq's variables"
            )
        return Answer(self._problem(checked), migrations, () if migrations else pending_in(planned.stdout))

    def _let_in(self, database: str) -> None:
        """Make the role that may read, and nothing else."""
        session = self._connect(self._instance.params("postgres"))
        try:
            session.execute(f"CREATE ROLE {GUEST} LOGIN NOSUPERUSER IN ROLE pg_read_all_data")
            session.execute(f"ALTER ROLE {GUEST} SET default_transaction_read_only = on")
            session.execute(f"GRANT CONNECT ON DATABASE {quote_identifier(database)} TO {GUEST}")
        finally:
            session.close()

    def _environment(self, database: str) -> dict[str, str]:
        application, socket = self._application, self._instance.folder.app
        given = read_environment(application.environment_file) if application.environment_file else {}
        self._secrets = tuple(value for value in given.values() if len(value) >= _SECRET)
        place = urllib.parse.quote(socket, safe="")
        url = f"postgresql://{GUEST}@{place}:{PORT}/{urllib.parse.quote(database, safe='')}"
        settings = {"DJANGO_SETTINGS_MODULE": application.settings} if application.settings else {}
        libpq = {"PGHOST": socket, "PGPORT": str(PORT), "PGUSER": GUEST, "PGDATABASE": database}
        return {**given, **settings, **libpq, application.url_variable: url, "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8"}

    def _manage(self, environment: t.Mapping[str, str], *arguments: str) -> CommandResult:
        application = self._application
        argv = [ENV, f"--chdir={application.directory}", application.python, "manage.py", *arguments, "--no-color"]
        return self._runner.run(argv, timeout=self._left(), env=environment, os_user=application.os_user)

    def _problem(self, result: CommandResult) -> str:
        if result.rc == 0:
            return ""
        lines = [line.strip() for line in (result.stderr.strip() or result.stdout.strip()).splitlines() if line.strip()]
        told = lines[-1][:_TOLD] if lines else "it says nothing"
        for secret in self._secrets:
            told = told.replace(secret, "***")
        return f"manage.py {result.argv[4]} ended with {result.rc}: {told}"

    def _came(self, database: str) -> bool:
        log = self._instance.folder.log_end(_LOG_LIMIT)
        return f"connection authorized: user={GUEST} database={database}" in log
