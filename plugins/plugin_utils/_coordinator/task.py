# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From an Ansible task's arguments to a job, and from a report to a task's result. PRIVATE."""

from __future__ import annotations

import getpass
import os
import shlex
import socket
import typing as t

from ansible import context

from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._cluster.plan import Operation, Request
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._files import read_json, write_atomic
from ansible_collections.hms.postgres.plugins.plugin_utils import _bundle
from ansible_collections.hms.postgres.plugins.plugin_utils._report.html import render_html
from ansible_collections.hms.postgres.plugins.plugin_utils._report.status import render_status
from ansible_collections.hms.postgres.plugins.plugin_utils._report.text import render_text

from . import overview
from .course import Job, Report, RequestT, open_fleet
from .line import LineSpec
from .overview import Site
from .run import run

VERSION = "0.1.0"
LINE_VARIABLE = "hms_agent_line"
HIDDEN = frozenset({"databases", "bouncers", "records_directory", "fence_command"})
"""Arguments that a record does not repeat: they are the inventory's, or an operator's own program."""

GREET_URGENT = 6.0
"""Seconds that a host gets to answer in a failover and for the status, which don't wait for the dead."""
GREET_PLANNED = 20.0
"""The same in what is planned: that needs every host, so one that is only slow is waited for."""

SITE_SPEC: dict[str, t.Any] = {
    "cluster": {"type": "str", "required": True},
    "environment": {"type": "str", "required": True},
    "databases": {"type": "list", "elements": "str", "required": True},
    "bouncers": {"type": "list", "elements": "str", "required": True},
    "greet_seconds": {"type": "float", "default": GREET_URGENT},
}

PLANNED: dict[str, t.Any] = {"greet_seconds": {"type": "float", "default": GREET_PLANNED}}

OPERATION_SPEC: dict[str, t.Any] = {
    **SITE_SPEC,
    "records_directory": {"type": "path", "required": True},
    "confirm": {"type": "str", "default": ""},
    "force": {"type": "list", "elements": "str", "default": []},
    "hold_seconds": {"type": "float", "default": 3.0},
    "rto_seconds": {"type": "float", "default": 3600.0},
    "rpo_seconds": {"type": "float", "default": 300.0},
}


def site_of(arguments: t.Mapping[str, t.Any]) -> Site:
    """The hosts named in a task's arguments."""
    return Site(
        arguments["cluster"], arguments["environment"], tuple(arguments["databases"]), tuple(arguments["bouncers"])
    )


def lines_of(site: Site, hostvars: t.Mapping[str, t.Any]) -> tuple[LineSpec, ...]:
    """The line to each host, as `agent_line` left it in the host's variables."""
    found = []
    for host in (*site.databases, *site.bouncers, *site.services):
        variables = hostvars.get(host) or {}
        line = (variables.get(LINE_VARIABLE) or {}).get("line")
        if line is None:
            raise Refused(
                f"How to reach {host} is not known.",
                reason="no_line",
                state="Nothing was touched.",
                next_step=f"Register hms.postgres.agent_line as {LINE_VARIABLE} on every host, as the playbooks do.",
            )
        password = variables.get("ansible_become_password") or variables.get("ansible_become_pass") or ""
        found.append(LineSpec(host, tuple(line["argv"]), line["prompt"], str(password)))
    return tuple(found)


def who() -> str:
    """Who runs this: user, machine and, under AWX, the job."""
    job = os.environ.get("AWX_JOB_ID") or os.environ.get("JOB_ID")
    return f"{getpass.getuser()}@{socket.gethostname()}" + (f" (AWX job {job})" if job else "")


def command_so_far() -> str:
    """What was typed before the playbook's name, so that a report can name the next command in full."""
    inventories = context.CLIARGS.get("inventory") or ()
    return " ".join(["ansible-playbook", *(shlex.join(["-i", str(source)]) for source in inventories)])


def request_of(operation: Operation, arguments: t.Mapping[str, t.Any]) -> Request:
    """The request in a task's arguments."""
    return Request(
        operation=operation,
        candidate=arguments.get("candidate") or "",
        confirm=arguments["confirm"],
        force=tuple(arguments["force"]),
        rpo_seconds=arguments["rpo_seconds"],
        rto_seconds=arguments["rto_seconds"],
        hold_seconds=arguments["hold_seconds"],
        fence_command=tuple(arguments.get("fence_command") or ()),
    )


def job_of(
    request: RequestT, site: Site, arguments: t.Mapping[str, t.Any], hostvars: t.Mapping[str, t.Any]
) -> Job[RequestT]:
    """What a task asks of the engine; its record tells the arguments that an operator chose."""
    return Job(
        request=request,
        site=site,
        lines=lines_of(site, hostvars),
        bundle=_bundle.build(),
        by=who(),
        records_directory=arguments["records_directory"],
        parameters={key: value for key, value in arguments.items() if key not in HIDDEN},
        version=VERSION,
        command=command_so_far(),
        greet_seconds=arguments["greet_seconds"],
    )


def result_of(report: Report) -> dict[str, t.Any]:
    plan = report.plan.as_record()
    result: dict[str, t.Any] = {
        "changed": report.changed,
        "msg": report.plan.summary,
        "plan": plan,
        "primary": report.plan.new_primary,
        "record_path": report.record_path,
        "warnings": list(report.plan.warnings),
    }
    if report.record is not None:
        clients = {key: value for key, value in report.record.get("clients", {}).items() if key != "samples"}
        result["record"] = {**report.record, "clients": clients}
        result["msg"] = report.record["outcome"]["message"]
        result["report"] = write_report(report.record_path).splitlines()
    blocked = [f"[{refusal.rule}] {refusal.message} {refusal.next_step}" for refusal in report.plan.blocked]
    if blocked:
        result["refused"] = blocked
        result["msg"] = "It would be refused: " + " ".join(blocked)
    return result


def write_report(record_path: str) -> str:
    """Render the record on disk as a page beside it; returns the text for the terminal."""
    record = read_json(record_path)
    page = record_path.removesuffix(".json") + ".html"
    write_atomic(page, render_html(record))
    return f"{render_text(record)}\nReport: {page}"


def plan_text(report: Report) -> dict[str, str]:
    """The diff: the cluster as it is, and what the plan does to it."""
    before = overview.for_record(report.facts)
    lines = [f"{row['name']}: {row['role']}, timeline {row['timeline']}, {row['lsn']}\n" for row in before["members"]]
    lines += [f"{row['name']}: leads to {row['points_at'] or '?'}\n" for row in before["poolers"]]
    steps = [
        f"{number:2}. [{action.phase}] {action.host}: {action.what} ({action.why})\n"
        for number, action in enumerate(report.plan.actions, start=1)
    ]
    predicted = report.plan.predicted
    if steps and predicted.stall_seconds is not None:
        steps.append(f"Predicted: writers wait {predicted.stall_seconds} s. " + "; ".join(predicted.basis) + "\n")
    return {
        "before_header": "the cluster",
        "after_header": "the plan",
        "before": "".join(lines),
        "after": "".join(lines + steps),
    }


def failure(error: HmsError) -> dict[str, t.Any]:
    """An error as a task's result."""
    return {
        "failed": True,
        "msg": error.full_text(),
        "reason": error.reason,
        "phase": error.phase,
        "state": error.state,
        "next_step": error.next_step,
        "details": error.details,
    }


def run_operation(
    operation: Operation, arguments: t.Mapping[str, t.Any], hostvars: t.Mapping[str, t.Any], *, check_mode: bool
) -> dict[str, t.Any]:
    """Carry out a switchover or failover task."""
    try:
        job = job_of(request_of(operation, arguments), site_of(arguments), arguments, hostvars)
        report = run(job, SystemClock(), check_mode=check_mode)
        return {**result_of(report), "diff": plan_text(report)}
    except HmsError as error:
        return failed_result(error)


def failed_result(error: HmsError) -> dict[str, t.Any]:
    """The result of an operation that failed, with its report where there is a record."""
    result = failure(error)
    if "record" in error.details:
        result["report_path"] = write_report(str(error.details["record"])).splitlines()[-1].removeprefix("Report: ")
    return result


def run_overview(arguments: t.Mapping[str, t.Any], hostvars: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Look at the cluster and change nothing."""
    clock = SystemClock()
    try:
        site = site_of(arguments)
        fleet = open_fleet(lines_of(site, hostvars), _bundle.build(), site, clock, arguments["greet_seconds"])
        try:
            facts = overview.observe(fleet, site)
            fleet.goodbye()
        finally:
            fleet.abandon()
    except HmsError as error:
        return failure(error)
    cluster = overview.for_screen(facts, clock)
    return {"changed": False, "cluster": cluster, "screen": render_status(cluster).splitlines()}
