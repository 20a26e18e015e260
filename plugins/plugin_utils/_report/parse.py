# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From JSON to a `Record`, whatever is missing or broken in it. PRIVATE to the collection."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from . import model
from .access import flag, integer, items, mapping, mappings, number, position, text, texts
from .host_side import Check, Drilled, HostSide
from .units import moment

Data = Mapping[str, t.Any]


def parse_record(raw: Data) -> model.Record:
    """The record as typed values."""
    asked, objectives = mapping(raw.get("asked")), mapping(raw.get("objectives"))
    return model.Record(
        id=text(raw.get("id")),
        operation=text(raw.get("operation")),
        cluster=text(raw.get("cluster")),
        environment=text(raw.get("environment")),
        system_identifier=text(raw.get("system_identifier")),
        asked_by=text(asked.get("by")),
        asked_at=moment(text(asked.get("at"))),
        asked_at_text=text(asked.get("at")),
        parameters=mapping(asked.get("parameters")),
        software=_software(mapping(raw.get("software"))),
        rto_objective=number(objectives.get("rto_seconds")),
        rpo_objective=number(objectives.get("rpo_seconds")),
        plan=_plan(mapping(raw.get("plan"))),
        before=_snapshot(raw.get("before")),
        after=_snapshot(raw.get("after")),
        steps=tuple(_step(index, step) for index, step in enumerate(mappings(raw.get("steps")), start=1)),
        critical=_span(raw.get("critical_section")),
        fence=_fence(raw.get("fence")),
        losses=_losses(raw.get("losses")),
        clients=_clients(raw.get("clients")),
        outage=_outage(raw.get("outage")),
        outcome=_outcome(mapping(raw.get("outcome"))),
        kept_directory=text(raw.get("kept_directory")),
        host_side=_host_side(raw),
    )


def _host_side(raw: Data) -> HostSide:
    return HostSide(
        drilled=tuple(_drilled(one) for one in mappings(raw.get("results"))),
        checks=_checks(raw.get("validations")),
        intended=texts(mapping(raw.get("plan")).get("steps")) or texts(raw.get("plan")),
        reached={text(name): text(value) for name, value in mapping(raw.get("reached")).items() if text(value)},
    )


def _checks(raw: t.Any) -> tuple[Check, ...]:
    return tuple(
        Check(
            name=text(one.get("name")),
            database=text(one.get("database")),
            ok=flag(one.get("ok")) is True,
            detail=text(one.get("detail")),
        )
        for one in mappings(raw)
    )


def _drilled(raw: Data) -> Drilled:
    recovered = mapping(raw.get("recovered"))
    spent = ((text(name), number(value)) for name, value in mapping(raw.get("seconds")).items())
    return Drilled(
        database=text(raw.get("database")),
        engine=text(raw.get("engine")),
        id=text(raw.get("id")),
        label=text(raw.get("label")),
        store=text(raw.get("store")),
        ok=flag(raw.get("ok")) is True,
        reason=text(raw.get("reason")),
        problems=texts(raw.get("problems")),
        spent={name: value for name, value in spent if value is not None},
        restore_seconds=number(raw.get("restore_seconds")),
        projected_seconds=number(raw.get("projected_rto_seconds")),
        rpo_seconds=number(raw.get("rpo_seconds")),
        stored=integer(raw.get("bytes")),
        rate=integer(raw.get("bytes_per_second")),
        then_bytes=integer(raw.get("database_bytes")),
        now_bytes=integer(raw.get("present_bytes")),
        noted=flag(raw.get("noted")) is True,
        last_transaction=text(recovered.get("last_transaction")),
        segment=text(recovered.get("segment")),
        pending=texts(mapping(raw.get("django")).get("pending")),
        checks=_checks(raw.get("validations")),
    )


def _software(raw: Data) -> tuple[tuple[str, str], ...]:
    """Rows of what and which version: a product may have one version, or one a host."""
    rows: list[tuple[str, str]] = []
    for product, version in raw.items():
        if isinstance(version, Mapping):
            rows += [(f"{text(product)} on {text(host)}", text(found)) for host, found in version.items()]
        else:
            rows.append((text(product), text(version)))
    return tuple(rows)


def _plan(raw: Data) -> model.Plan:
    predicted = mapping(raw.get("predicted"))
    return model.Plan(
        summary=text(raw.get("summary")),
        old_primary=text(raw.get("old_primary")),
        new_primary=text(raw.get("new_primary")),
        actions=tuple(_action(action) for action in mappings(raw.get("actions"))),
        refusals=tuple(_refusal(refusal) for refusal in mappings(raw.get("refusals"))),
        warnings=texts(raw.get("warnings")),
        stall_seconds=number(predicted.get("stall_seconds")),
        lost_transactions=integer(predicted.get("lost_transactions")),
        basis=texts(predicted.get("basis")),
    )


def _action(raw: Data) -> model.Action:
    return model.Action(
        id=text(raw.get("id")),
        phase=text(raw.get("phase")),
        host=text(raw.get("host")),
        what=text(raw.get("what")),
        why=text(raw.get("why")),
    )


def _refusal(raw: Data) -> model.Refusal:
    return model.Refusal(
        rule=text(raw.get("rule")),
        message=text(raw.get("message")),
        next_step=text(raw.get("next_step")),
        overridable=flag(raw.get("overridable")) is True,
        overridden=flag(raw.get("overridden")) is True,
    )


def _snapshot(raw: t.Any) -> model.Snapshot | None:
    found = mapping(raw)
    if not found:
        return None
    return model.Snapshot(
        primary=text(found.get("primary")),
        members=tuple(_member(member) for member in mappings(found.get("members"))),
        poolers=tuple(_pooler(pooler) for pooler in mappings(found.get("poolers"))),
    )


def _member(raw: Data) -> model.Member:
    return model.Member(
        name=text(raw.get("name")),
        address=text(raw.get("address")),
        reachable=flag(raw.get("reachable")),
        role=text(raw.get("role")),
        timeline=integer(raw.get("timeline")) or None,
        lsn=position(raw.get("lsn")),
        lag_bytes=integer(raw.get("lag_bytes")),
        lag_seconds=number(raw.get("lag_seconds")),
        sync_state=text(raw.get("sync_state")),
        version=text(raw.get("version")),
        upstream=text(raw.get("upstream")),
    )


def _pooler(raw: Data) -> model.Pooler:
    processes = raw.get("processes")
    return model.Pooler(
        name=text(raw.get("name")),
        processes=len(processes) if isinstance(processes, list) else integer(processes),
        points_at=text(raw.get("points_at")),
        paused=flag(raw.get("paused")),
        clients=integer(raw.get("clients")),
    )


def _step(index: int, raw: Data) -> model.Step:
    started, ended = number(raw.get("started")), number(raw.get("ended"))
    if started is None:
        ended = None
    elif ended is not None:
        ended = max(started, ended)
    return model.Step(
        number=index,
        id=text(raw.get("id")),
        phase=text(raw.get("phase")),
        host=text(raw.get("host")),
        title=text(raw.get("title")) or text(raw.get("id")) or "(no title)",
        started=started,
        ended=ended,
        result=text(raw.get("result")),
        detail=text(raw.get("detail")),
        evidence=mapping(raw.get("evidence")),
    )


def _span(raw: t.Any) -> model.Span | None:
    found = mapping(raw)
    started, ended = number(found.get("started")), number(found.get("ended"))
    if started is None or ended is None or ended < started:
        return None
    return model.Span(started=started, ended=ended)


def _fence(raw: t.Any) -> model.Fence | None:
    found = mapping(raw)
    if not found:
        return None
    return model.Fence(
        host=text(found.get("host")),
        method=", ".join(texts(found.get("method"))),
        proofs=tuple(_proof(proof) for proof in mappings(found.get("proofs"))),
    )


def _proof(raw: Data) -> model.Proof:
    """A proof without the word `holds` is one that was written down because it holds."""
    return model.Proof(
        claim=text(raw.get("claim")),
        evidence=text(raw.get("evidence")),
        at=number(raw.get("at")),
        at_text=text(raw.get("at")),
        holds=flag(raw.get("holds", True)) is True,
    )


def _losses(raw: t.Any) -> model.Losses | None:
    found = mapping(raw)
    if not found:
        return None
    return model.Losses(
        known=flag(found.get("known")) is True,
        count=integer(found.get("count")),
        bytes=integer(found.get("bytes")),
        transactions=tuple(
            model.Transaction(
                xid=text(lost.get("xid")),
                committed_at=text(lost.get("committed_at")),
                lsn=text(lost.get("lsn")),
                relations=texts(lost.get("relations")),
            )
            for lost in mappings(found.get("transactions"))
        ),
        basis=text(found.get("basis")),
    )


def _clients(raw: t.Any) -> model.Clients | None:
    found = mapping(raw)
    if not found:
        return None
    samples = [sample for sample in map(_sample, items(found.get("samples"))) if sample]
    samples.sort(key=lambda sample: sample.sent)
    return model.Clients(
        source=text(found.get("source")),
        samples=tuple(samples),
        acknowledged=integer(found.get("acknowledged")),
        failed=integer(found.get("failed")),
        unknown=integer(found.get("unknown")),
        lost=integer(found.get("lost")),
        longest_stall_seconds=number(found.get("longest_stall_seconds")),
        stall=_span(found.get("stall")),
    )


def _sample(raw: t.Any) -> model.Sample | None:
    fields = items(raw)
    if len(fields) < 3:
        return None
    sent, latency = number(fields[0]), number(fields[1])
    if sent is None or latency is None or latency < 0:
        return None
    return model.Sample(
        sent=sent,
        latency=latency,
        result=text(fields[2]),
        source=text(fields[3]) if len(fields) > 3 else "",
    )


def _outage(raw: t.Any) -> model.Outage | None:
    found = mapping(raw)
    if not found:
        return None
    return model.Outage(
        started_at=moment(text(found.get("started_at"))),
        ended_at=moment(text(found.get("ended_at"))),
        basis=text(found.get("basis")),
    )


def _outcome(raw: Data) -> model.Outcome:
    return model.Outcome(
        status=text(raw.get("status")),
        message=text(raw.get("message")),
        next_steps=texts(raw.get("next_steps")),
        rto_seconds=number(raw.get("rto_seconds")),
        rpo_seconds=number(raw.get("rpo_seconds")),
        rto_met=flag(raw.get("rto_met")),
        rpo_met=flag(raw.get("rpo_met")),
        lost_transactions=integer(raw.get("lost_transactions")),
    )
