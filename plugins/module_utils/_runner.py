# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The on-host command line: the same code as the modules, packed as one file that needs no Ansible. PRIVATE."""

from __future__ import annotations

import argparse
import typing as t


def _agent(arguments: argparse.Namespace) -> int:
    from ._cluster.agent import main as agent_main

    return agent_main(arguments.config, services=arguments.services, systemctl=arguments.systemctl)


def _start_guard(arguments: argparse.Namespace) -> int:
    from ._cluster.start_guard import main as guard_main

    return guard_main(arguments.config)


def _sync_guard(arguments: argparse.Namespace) -> int:
    from ._cluster.sync_guard_loop import main as sync_guard_main

    return sync_guard_main(arguments.config, once=arguments.once)


def _backup(arguments: argparse.Namespace) -> int:
    from ._backup.job import main_backup

    return main_backup(arguments.config, arguments.job)


def _backup_check(arguments: argparse.Namespace) -> int:
    from ._backup.job import main_check

    return main_check(arguments.config, arguments.job)


def _backup_verify(arguments: argparse.Namespace) -> int:
    from ._backup.job import main_verify

    return main_verify(
        arguments.config, arguments.job, identifier=arguments.id, which=arguments.which, level=arguments.level
    )


def _restore_drill(arguments: argparse.Namespace) -> int:
    from ._drill_work import main as drill_main

    return drill_main(arguments.config)


def _backup_options(name: str, command: argparse.ArgumentParser) -> None:
    """The options of the commands about backups; exit code 2 is theirs for a bad configuration, as it is argparse's."""
    command.add_argument(
        "--job", required=name == "backup", default="", help="the job's name in the schedule of backup.json"
    )
    if name == "backup-verify":
        command.add_argument("--id", default="", help="one backup by its id")
        command.add_argument(
            "--which",
            choices=["newest", "unverified", "all"],
            default="newest",
            help="the newest of each kind, those not verified, or all",
        )
        command.add_argument(
            "--level", choices=["read", "deep"], default="read", help="read to the end, or restore and compare"
        )


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    root = argparse.ArgumentParser(prog="hms-postgres", description="The on-host part of hms.postgres.")
    commands = root.add_subparsers(dest="command", required=True)
    for name, function, purpose in (
        ("agent", _agent, "serve a coordinator over standard input and output"),
        ("start-guard", _start_guard, "decide whether the instance on this host may start"),
        ("sync-guard", _sync_guard, "let commits go on alone while no standby streams, under the policy degrade"),
        ("backup", _backup, "run one job of the backup schedule, if it is this host's turn"),
        ("backup-check", _backup_check, "see that the newest verified backups are as young as the policy wants"),
        ("backup-verify", _backup_verify, "prove backups that exist, and note the result beside them"),
        ("restore-drill", _restore_drill, "restore the newest backups on a throwaway instance, and note the result"),
    ):
        command = commands.add_parser(name, help=purpose, description=purpose)
        place = command.add_mutually_exclusive_group(required=True) if name == "agent" else command
        what = "the directory that holds member.json and backup.json"
        place.add_argument("--config", required=name != "agent", default="", help=what)
        command.set_defaults(function=function)
        if name == "agent":
            state = "instead: the state directory of a host that has no role in the cluster and runs services"
            place.add_argument("--services", default="", help=state)
            command.add_argument("--systemctl", default="", help="a program that does as systemctl does")
        if name == "sync-guard":
            command.add_argument("--once", action="store_true", help="look once, say what is seen, and end")
        if name.startswith("backup"):
            _backup_options(name, command)
    return root


def main(argv: t.Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    arguments = parser().parse_args(argv)
    function: t.Callable[[argparse.Namespace], int] = arguments.function
    return function(arguments)
