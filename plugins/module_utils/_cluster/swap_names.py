# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which database becomes which: a request held against the catalog. Pure. PRIVATE.

Whether a swap is done already is measured, not remembered: the transaction that renamed both databases left a mark on
each (the name it had before), and a mark follows its database whatever it is called later.
"""

from __future__ import annotations

import typing as t

from .._errors import Refused
from .._tools.database_rename import Database, check_name, kept_name, stamp_of
from .swap_model import Names, SwapRequest

BEFORE, AFTER = "before", "after"


def resolve(request: SwapRequest, databases: t.Sequence[Database]) -> Names:
    """Who is who. What can't be told is in `wrong`."""
    by_name = {database.name: database for database in databases}
    live = by_name.get(request.database)
    word = BEFORE if request.state == "swapped" else AFTER
    keep = request.keep_as or kept_name(request.database, word, request.stamp)
    try:
        for name, what in ((request.database, "the live database"), (keep, "the name that the live database gets")):
            check_name(name, what)
        if request.scratch:
            check_name(request.scratch, "the scratch database")
    except Refused as error:
        return Names(request.database, request.scratch, keep, wrong=("bad_name", error.message, error.next_step))
    if live is None:
        return _missing(request, by_name)
    if request.state == "rolled_back" and not request.scratch:
        return _way_back(live, databases, keep)
    return _named(request, live, by_name, keep)


def _missing(request: SwapRequest, by_name: t.Mapping[str, Database]) -> Names:
    """Somebody dropped the live database: the scratch database can be given its name."""
    if request.scratch in by_name:
        return Names(request.database, request.scratch, missing=True)
    text = f"There is no database {request.database!r}, and none that could become it was named."
    if request.scratch:
        text = f"There is neither a database {request.database!r} nor {request.scratch!r}."
    step = f"Restore a backup (playbooks/restore.yml), or name the database that is to become {request.database}."
    return Names(request.database, request.scratch, wrong=("nothing_live", text, step))


def _named(request: SwapRequest, live: Database, by_name: t.Mapping[str, Database], keep: str) -> Names:
    """The scratch database was named."""
    names = Names(live.name, request.scratch, keep)
    if request.scratch in by_name:
        wrong = _clash(names, by_name)
        return Names(live.name, request.scratch, keep, wrong=wrong)
    if request.scratch and live.mark_was == request.scratch:
        return Names(live.name, request.scratch, "", done=True)
    text = f"There is no database {request.scratch!r}, and {live.name} was not made of one of that name."
    if not request.scratch:
        text = "No scratch database was named."
    return Names(
        live.name, request.scratch, keep, wrong=("no_scratch", text, "Name the database that is to become live.")
    )


def _clash(names: Names, by_name: t.Mapping[str, Database]) -> tuple[str, str, str] | None:
    if len({names.live, names.scratch, names.keep}) < 3:
        text = f"{names.live!r}, {names.scratch!r} and {names.keep!r} must be three different names."
        return ("same_name", text, "Correct the names.")
    if names.keep in by_name:
        text = f"There is a database {names.keep!r} already."
        return ("keep_exists", text, "Give another keep_as, or drop that one if nobody needs it.")
    return None


def _way_back(live: Database, databases: t.Sequence[Database], keep: str) -> Names:
    """The newest one kept; when the live one is newer than that, it was brought back already."""
    kept = sorted((stamp_of(each.name, live.name, BEFORE), each.name) for each in databases)
    stamp, scratch = kept[-1] if kept else ("", "")
    came_from = stamp_of(live.mark_was, live.name, BEFORE)
    if came_from and came_from > stamp:
        return Names(live.name, live.mark_was, "", done=True)
    if stamp and _partner_gone(live, databases):
        text = (
            f"Nothing from before {live.mark_operation}, which made {live.name} of {live.mark_was}, is there: "
            f"{live.name} did not exist then, or what was kept was dropped."
        )
        step = f"To go back further, name the database as scratch: the newest kept is {scratch}."
        return Names(live.name, "", keep, wrong=("nothing_kept", text, step))
    if not stamp:
        text = f"No database {kept_name(live.name, BEFORE, '…')!r} was kept, so there is none to go back to."
        return Names(live.name, "", keep, wrong=("nothing_kept", text, "Name the one to go back to as scratch."))
    by_name = {database.name: database for database in databases}
    return Names(live.name, scratch, keep, wrong=_clash(Names(live.name, scratch, keep), by_name))


def _partner_gone(live: Database, databases: t.Sequence[Database]) -> bool:
    """Whether the swap that made `live` left no other database: both carry its mark."""
    others = {each.mark_operation for each in databases if each.name != live.name}
    return bool(live.mark_operation) and live.mark_operation not in others
