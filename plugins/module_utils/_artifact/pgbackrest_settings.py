# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which pgBackRest is meant: the key ``pgbackrest`` of a wish. PRIVATE to the collection."""

from __future__ import annotations

import dataclasses
import typing as t

from .._command import CommandRunner
from .._errors import HmsError
from .._tools.pgbackrest import PgBackRest


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where its configuration is, what the cluster is called there, and whose rights it runs with.

    Attributes:
        repo: the repository's number in the configuration; a backup goes into one, WAL into all.
    """

    config: str
    stanza: str
    os_user: str = "postgres"
    repo: int = 1


def settings_from(data: t.Mapping[str, t.Any], *, cluster: str) -> Settings:
    """The settings out of plain data; raises `HmsError` with reason ``bad_config``."""
    values = {key: value for key, value in data.items() if value is not None}
    unknown = sorted(set(values) - {field.name for field in dataclasses.fields(Settings)})
    if unknown:
        raise _bad_config(f"pgbackrest has no option {', '.join(unknown)}.")
    repo = values.get("repo", 1)
    if isinstance(repo, bool) or not isinstance(repo, int) or not 1 <= repo <= 256:
        raise _bad_config(f"pgbackrest.repo must be a number from 1, not {repo!r}.")
    for name in ("config", "stanza", "os_user"):
        if name in values and not (isinstance(values[name], str) and values[name]):
            raise _bad_config(f"pgbackrest.{name} must be a text that isn't empty.")
    return Settings(
        config=values.get("config", f"/etc/hms-postgres/{cluster}/pgbackrest.conf"),
        stanza=values.get("stanza", cluster),
        os_user=values.get("os_user", "postgres"),
        repo=repo,
    )


def driver(settings: Settings, runner: CommandRunner) -> PgBackRest:
    """pgBackRest, set up like that."""
    return PgBackRest(
        runner, config=settings.config, stanza=settings.stanza, os_user=settings.os_user, repo=settings.repo
    )


def _bad_config(message: str) -> HmsError:
    return HmsError(
        message,
        reason="bad_config",
        phase="wish",
        state="Nothing was touched.",
        next_step="Correct it and run again.",
    )
