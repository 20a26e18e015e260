# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changing a server's own settings, and the bulletin that other hosts may read. PRIVATE.

The bulletin is the custom setting ``hms.operation`` = ``<operation id>:<word>``. Anybody who may connect
can read it, a standby included, so it carries one host's promise to the others when the coordinator is gone.
"""

from __future__ import annotations

import typing as t

from .._postgres import Session, quote_identifier, quote_literal

BULLETIN = "hms.operation"
RETRY_INTERVAL = "wal_retrieve_retry_interval"
RESTORE_COMMAND = "restore_command"

# A promote request that arrives while the startup process sleeps between two attempts to get WAL waits for the
# rest of that sleep: measured up to 5.4 s with the default of 5 s, at most 0.41 s with 200 ms (50 promotions each).
ARMED_RETRY_INTERVAL = "20ms"


def alter_system(session: Session, values: t.Mapping[str, str | None], *, reload: bool = True) -> None:
    """ALTER SYSTEM SET each value, or RESET where it is None, and reload."""
    for name, value in values.items():
        quoted = ".".join(quote_identifier(part) for part in name.split("."))
        if name == BULLETIN:  # a setting nobody defined must exist in the session before ALTER SYSTEM takes it
            session.execute(f"SET {quoted} = ''")
        if value is None:
            session.execute(f"ALTER SYSTEM RESET {quoted}")
            continue
        session.execute(f"ALTER SYSTEM SET {quoted} = {quote_literal(value)}")
    if reload:
        session.execute("SELECT pg_catalog.pg_reload_conf()")


def own_value(session: Session, name: str) -> str | None:
    """What ALTER SYSTEM has set for `name`, or None."""
    value = session.value(
        "SELECT setting FROM pg_catalog.pg_file_settings"
        " WHERE name = %s AND sourcefile LIKE '%%/postgresql.auto.conf' ORDER BY seqno DESC LIMIT 1",
        (name,),
    )
    return None if value is None else str(value)


def read_bulletin(session: Session) -> tuple[str, str]:
    """Operation id and word on a server's bulletin; empty strings when there is none."""
    text = str(session.value(f"SELECT pg_catalog.current_setting('{BULLETIN}', true)") or "")
    identifier, _colon, word = text.partition(":")
    return identifier, word
