# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All backups of a cluster on one screen, 132 columns wide, from what each host sees. PRIVATE to the collection.

What is wrong stands first, and says what it is. Backups that several hosts see are one backup.
"""

from __future__ import annotations

import datetime
import typing as t
from collections.abc import Mapping, Sequence

from ansible_collections.hms.postgres.plugins.module_utils._backup.freshness import words

from .access import flag, integer, mapping, mappings, number, text, texts
from .columns import cut, ends, table, wrap
from .units import count, moment, size, stamp_text

WIDTH = 132
SHOWN = 20
_NONE = "-"

Data = Mapping[str, t.Any]
Seen = Sequence[tuple[str, Data]]
"""What each host answered, by its name."""


def failures(seen: Seen) -> list[str]:
    """What the policy is not satisfied with; empty when all is well."""
    answered = [(host, answer) for host, answer in seen if "backups" in answer]
    if not answered:
        return [f"No host could tell its backups. {_silence(host, answer)}" for host, answer in seen[:1]]
    return [text(verdict.get("what")) for verdict in _verdicts(answered) if not flag(verdict.get("ok"))]


def render_backups(seen: Seen, *, shown: int = SHOWN) -> str:
    """The screen, without a line feed at its end."""
    answered = [(host, answer) for host, answer in seen if "backups" in answer]
    backups = _merged(answered)
    blocks = [
        [*_title(answered), "=" * WIDTH, *_summary(seen, answered)],
        _problems(seen, answered),
        _jobs(answered),
        *_databases(backups, shown),
        _sum(backups, answered, shown),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _title(answered: Seen) -> list[str]:
    first: Data = answered[0][1] if answered else {}
    name, environment = text(first.get("cluster")) or "(no cluster)", text(first.get("environment"))
    return [
        ends(f"Backups of {name} ({environment})" if environment else name, stamp_text(text(first.get("at"))), WIDTH)
    ]


def _summary(seen: Seen, answered: Seen) -> list[str]:
    wrong = failures(seen)
    if wrong:
        return [line for one in wrong for line in wrap(one, width=WIDTH, most=4, first="TOO OLD   ", later=" " * 10)]
    if not _verdicts(answered):
        return ["No job demands anything: nobody will be told when backups stop."]
    return ["Every job has a verified backup that is young enough."]


def _verdicts(answered: Seen) -> list[Data]:
    """One verdict for each job: the best that any host can give, for stores may be a host's own."""
    best: dict[tuple[str, str], Data] = {}
    for _host, answer in answered:
        for verdict in mappings(answer.get("freshness")):
            key = (text(verdict.get("job")), text(verdict.get("database")))
            if key not in best or _rank(verdict) > _rank(best[key]):
                best[key] = verdict
    return list(best.values())


def _rank(verdict: Data) -> tuple[bool, bool, float]:
    age = number(verdict.get("age"))
    return (flag(verdict.get("ok")) is True, age is not None, -(age or 0.0))


def _silence(host: str, answer: Data) -> str:
    return f"{host}: {text(answer.get('msg')) or 'it could not be reached.'}"


def _problems(seen: Seen, answered: Seen) -> list[str]:
    told = [_silence(host, answer) for host, answer in seen if "backups" not in answer]
    for host, answer in answered:
        for problem in mappings(answer.get("problems")):
            where = f" (on {host})" if _own(text(problem.get("store"))) else ""
            told.append(text(problem.get("what")) + where)
    return [
        line
        for one in dict.fromkeys(told)
        for line in wrap(one, width=WIDTH, most=4, first="PROBLEM   ", later=" " * 10)
    ]


def _jobs(answered: Seen) -> list[str]:
    verdicts = {(text(one.get("job")), text(one.get("database"))): one for one in _verdicts(answered)}
    jobs: dict[tuple[str, str], Data] = {}
    for _host, answer in answered:
        for job in mappings(answer.get("jobs")):
            jobs.setdefault((text(job.get("name")), text(job.get("database"))), job)
    if not jobs:
        return []
    rows = [_job(job, verdicts.get(key, {})) for key, job in jobs.items()]
    return table(("JOB", "MAKES", "OF", "WITH", "WHEN", "ON", "NEWEST VERIFIED", "ALLOWED", "STATE"), rows, WIDTH)


def _job(job: Data, verdict: Data) -> tuple[str, ...]:
    age, allowed = number(verdict.get("age")), number(job.get("max_age"))
    newest = "none" if verdict else _NONE
    young = job.get("restored_within") is not None and (allowed is None or (age is not None and 0 <= age <= allowed))
    late = "NO DRILL" if young else "TOO OLD" if age is not None else "NEVER"
    state = {True: "ok", False: late, None: _NONE}[flag(verdict.get("ok"))]
    return (
        text(job.get("name")),
        text(job.get("type")),
        text(job.get("database")),
        text(job.get("engine")),
        text(job.get("cron")) or "by hand",
        text(job.get("run_on")),
        f"{words(age)} ago" if age is not None else newest,
        words(allowed) if allowed is not None else _NONE,
        state,
    )


def _own(store: str) -> bool:
    """Whether a store is a folder of its host, and not one that every host sees."""
    return store.startswith("/")


def _merged(answered: Seen) -> list[Data]:
    """Every backup once, newest first, its copies named by host where they are a host's own."""
    found: dict[tuple[str, str], dict[str, t.Any]] = {}
    for host, answer in answered:
        for backup in mappings(answer.get("backups")):
            copies: list[Data] = [
                {
                    **copy,
                    "store": f"{host}:{text(copy.get('store'))}"
                    if _own(text(copy.get("store")))
                    else copy.get("store"),
                }
                for copy in mappings(backup.get("copies"))
            ]
            key = (text(backup.get("database")), text(backup.get("id")))
            known = found.get(key)
            if known is None or _proven(backup) > _proven(known):
                copies += mappings(known.get("copies")) if known else []
                found[key] = {**backup, "copies": copies}
            else:
                names = {copy.get("store") for copy in known["copies"]}
                known["copies"] += [copy for copy in copies if copy["store"] not in names]
    return sorted(
        found.values(), key=lambda backup: (text(backup.get("started")), text(backup.get("id"))), reverse=True
    )


def _proven(backup: Data) -> tuple[bool, str, str]:
    """How well one host's copies are proven: what came back from a drill is worth more than what was read."""
    verified = flag(backup.get("verified")) is True
    return verified, text(backup.get("restored_at")), text(mapping(backup.get("proof")).get("at"))


def _databases(backups: Sequence[Data], shown: int) -> list[list[str]]:
    blocks = []
    for database in sorted({text(backup.get("database")) for backup in backups}):
        own = [backup for backup in backups if text(backup.get("database")) == database][:shown]
        name = cut("BACKUP OF " + database, 28)
        heads = (name, "TYPE", "AGE", "SIZE", "VERIFIED", "RESTORES TO (UTC)", "MADE ON", "IS IN")
        blocks.append(table(heads, _fitting(heads, [_backup(backup) for backup in own]), WIDTH))
    return blocks


def _fitting(heads: Sequence[str], rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The rows with the last column cut to what is left, for an id that is cut is of no use to anybody."""
    taken = sum(max(len(line[column]) for line in [heads, *rows]) + 2 for column in range(len(heads) - 1))
    return [(*row[:-1], cut(row[-1], max(WIDTH - taken, 5))) for row in rows]


def _backup(backup: Data) -> tuple[str, ...]:
    age = number(backup.get("age_seconds"))
    return (
        text(backup.get("id")),
        text(backup.get("type")) + (" *" if text(backup.get("encryption")) in ("", "none") else ""),
        words(age) if age is not None else _NONE,
        size(integer(backup.get("bytes")) or 0),
        _verified(backup),
        _restores_to(backup),
        cut(text(backup.get("host")), 12) or _NONE,
        _where(backup),
    )


def _verified(backup: Data) -> str:
    proof, newest = mapping(backup.get("proof")), mapping(backup.get("verification"))
    if flag(backup.get("verified")):
        bad = sum(1 for copy in mappings(backup.get("copies")) if flag(copy.get("bad")))
        return f"{text(proof.get('level'))} {_short(proof.get('at'))}" + (f", {bad} BAD" if bad else "")
    if newest and flag(newest.get("ok")) is False:
        return f"BAD {_short(newest.get('at'))}"
    return "NO"


def _restores_to(backup: Data) -> str:
    first, last = text(backup.get("restorable_from")), text(backup.get("restorable_to"))
    if not last:
        return f"{_short(first)} … hole"
    if first == last:
        return _short(last)
    same_day = _short(first)[:5] == _short(last)[:5]
    return f"{_short(first)} … {_short(last)[6:] if same_day else _short(last)}"


def _short(value: t.Any) -> str:
    """``11-22 02:01``; the year where it isn't this one would be in the id."""
    when: datetime.datetime | None = moment(text(value))
    return f"{when:%m-%d %H:%M}" if when else _NONE


def _where(backup: Data) -> str:
    marks = (["held"] if flag(backup.get("held")) else []) + (["locked"] if text(backup.get("locked_until")) else [])
    stores = [text(copy.get("store")) for copy in mappings(backup.get("copies"))]
    # of a folder that is a host's own, the host is what matters
    places = dict.fromkeys(
        store.partition(":/")[0] if ":/" in store and "://" not in store else store for store in stores
    )
    return ", ".join([*places, *marks]) or _NONE


def _sum(backups: Sequence[Data], answered: Seen, shown: int) -> list[str]:
    if not answered:
        return []
    totals = [integer(answer.get("total")) or 0 for _host, answer in answered]
    known = max([len(backups), *totals])
    if not known:
        return ["There is no backup."]
    hidden = f" The newest {shown} of each database are shown." if known > len(backups) or len(backups) > shown else ""
    plain = [text(one.get("id")) for one in backups if text(one.get("encryption")) in ("", "none")]
    words_ = f"{count(known, 'backup')}.{hidden}"
    if plain:
        words_ += f" Not encrypted (*): {len(plain)}."
    partial = sorted({text(name) for one in backups for name in texts(mapping(one.get("verification")).get("partial"))})
    return [cut(words_, WIDTH), *(cut(f"  {one}", WIDTH) for one in partial)]
