# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The on-host command line: the same code as the modules, packed as one file that needs no Ansible. PRIVATE."""

from __future__ import annotations

import argparse
import typing as t


def _agent(arguments: argparse.Namespace) -> int:
    from ._cluster.agent import main as agent_main

    return agent_main(arguments.config)


def _start_guard(arguments: argparse.Namespace) -> int:
    from ._cluster.start_guard import main as guard_main

    return guard_main(arguments.config)


def _sync_guard(arguments: argparse.Namespace) -> int:
    from ._cluster.sync_guard_loop import main as sync_guard_main

    return sync_guard_main(arguments.config, once=arguments.once)


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    root = argparse.ArgumentParser(prog="hms-postgres", description="The on-host part of hms.postgres.")
    commands = root.add_subparsers(dest="command", required=True)
    for name, function, purpose in (
        ("agent", _agent, "serve a coordinator over standard input and output"),
        ("start-guard", _start_guard, "decide whether the instance on this host may start"),
        ("sync-guard", _sync_guard, "let commits go on alone while no standby streams, under the policy degrade"),
    ):
        command = commands.add_parser(name, help=purpose, description=purpose)
        command.add_argument("--config", required=True, help="the directory that holds member.json")
        command.set_defaults(function=function)
        if name == "sync-guard":
            command.add_argument("--once", action="store_true", help="look once, say what is seen, and end")
    return root


def main(argv: t.Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    arguments = parser().parse_args(argv)
    function: t.Callable[[argparse.Namespace], int] = arguments.function
    return function(arguments)
