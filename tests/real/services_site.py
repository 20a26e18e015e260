# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts that run an application's services: writers that go through a bouncer, started and ended by a stand-in for
systemctl. What it says comes from /proc and from the writers' own ledgers, not from the engine."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import signal
import sys
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster.swap_model import Service, SwapRequest
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.course import Job
from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.line import (
    LineSpec,
    agent_command,
    services_command,
)
from ansible_collections.hms.postgres.tests.real.engine_hosts import HERE, PASSWORD, PYTHON, agents_with
from ansible_collections.hms.postgres.tests.real.lab import Lab, process_alive, signal_all, until
from ansible_collections.hms.postgres.tests.real.swap_site import LIVE, SwapSite

WEB, WORKER = Service("app1", "web.service"), Service("app2", "worker.service")
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


class App:
    """A host with units; `state` is where its agent keeps its note."""

    def __init__(self, name: str, folder: pathlib.Path) -> None:
        self.name = name
        self.folder = folder
        self.units = folder / "units"
        self.state = folder / "state"
        self.units.mkdir(parents=True)
        self.systemctl = folder / "systemctl"
        self.systemctl.write_text(f'#!/bin/sh\nexec {PYTHON} -I {HERE}/systemctl_stand_in.py {self.units} "$@"\n')
        self.systemctl.chmod(0o755)

    def define(self, unit: str, argv: t.Sequence[str]) -> None:
        """What a unit runs."""
        told = {"argv": list(argv), "env": {"PGPASSWORD": PASSWORD}}
        (self.units / f"{unit}.json").write_text(json.dumps(told))

    def writer(self, unit: str, port: int) -> pathlib.Path:
        """Let a unit write through a bouncer; returns its ledger."""
        ledger = self.folder / f"{unit}.jsonl"
        self.define(unit, [sys.executable, str(HERE / "service_writer.py"), unit, str(ledger), str(port)])
        return ledger

    def run(self, verb: str, unit: str) -> None:
        """As an operator would."""
        pid = os.spawnl(os.P_WAIT, str(self.systemctl), "systemctl", verb, "--", unit)
        assert pid == 0

    def pid(self, unit: str) -> int:
        """The unit's process, 0 when it doesn't run."""
        path = self.units / f"{unit}.state"
        pid = int(json.loads(path.read_text())["pid"]) if path.exists() else 0
        return pid if pid and process_alive(pid) else 0

    def note(self) -> list[str]:
        """What is noted as stopped."""
        path = self.state / "services.json"
        return json.loads(path.read_text())["units"] if path.exists() else []

    def events(self) -> list[str]:
        """What the agents noted here."""
        found = []
        for path in sorted((self.state / "agent").glob("*.jsonl")):
            found += [json.loads(line)["event"] for line in path.read_text().splitlines()]
        return found

    def agents(self) -> list[int]:
        """Agents at work here."""
        return agents_with(str(self.state))

    def end(self) -> None:
        signal_all(self.agents(), signal.SIGKILL)
        pids = [self.pid(path.stem) for path in self.units.glob("*.json")]
        signal_all([pid for pid in pids if pid], signal.SIGKILL)


class ServicesSite(SwapSite):
    """A `SwapSite` with hosts app1 and app2; the agent of bouncer1 has units too."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab, databases=1, bouncers=1)
        self.apps = {name: App(name, self.folder / f"{name}-services") for name in ("app1", "app2", "bouncer1")}
        self.apps["bouncer1"].state = self.folder / "bouncer1" / "state"
        self.services = (WEB, WORKER)
        for service in self.services:
            self.app(service).writer(service.unit, self.bouncers["bouncer1"].port)

    def app(self, service: Service) -> App:
        return self.apps[service.host]

    def up(self, *services: Service) -> dict[Service, int]:
        """Have them run; returns their processes."""
        for service in services or self.services:
            app = self.app(service)
            if not app.pid(service.unit):
                app.run("start", service.unit)
            assert self.writes(service)
        return self.pids(*services)

    def pids(self, *services: Service) -> dict[Service, int]:
        return {service: self.app(service).pid(service.unit) for service in services or self.services}

    def ended(self, service: Service) -> bool:
        return not self.app(service).pid(service.unit)

    def ledger(self, service: Service) -> list[list[t.Any]]:
        path = self.app(service).folder / f"{service.unit}.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def writes(self, service: Service) -> bool:
        """Whether one more write of it is acknowledged."""
        before = len(self.ledger(service))
        until(lambda: len(self.ledger(service)) > before + 2, f"{service.words} writes")
        return all(line[2] == "ok" for line in self.ledger(service)[before:])

    def acknowledged(self, service: Service) -> set[tuple[str, int]]:
        """What each of its processes was told that it wrote."""
        return {(line[0], line[1]) for line in self.ledger(service) if line[2] == "ok"}

    def written(self) -> set[tuple[str, int]]:
        """What is there, in whatever database."""
        found = set()
        for name in self.oids():
            rows = self.inside(name, "SELECT source, seq FROM ledger").splitlines()
            found |= {(row.partition("|")[0], int(row.partition("|")[2])) for row in rows}
        return found

    def swap_job(self, **wishes: t.Any) -> Job[SwapRequest]:
        wishes.setdefault("services", self.services)
        lines, relays = wishes.pop("app_lines", {}), wishes.pop("relays", {})
        made = super().swap_job(**wishes)
        specs = [self._line(spec) for spec in made.lines]
        for name in ("app1", "app2"):
            app = self.apps[name]
            command = services_command(PYTHON, str(app.state), systemctl=str(app.systemctl))
            argv = lines.get(name) or ("/bin/sh", "-c", command)
            if name in relays:
                argv = (PYTHON, str(HERE / "engine_relay.py"), str(relays[name]), *argv)
            specs.append(LineSpec(name, argv))
        site = made.site._replace(services=("app1", "app2"))
        return dataclasses.replace(made, lines=tuple(specs), site=site)

    def _line(self, spec: LineSpec) -> LineSpec:
        """The bouncer's agent is told of the stand-in too."""
        if spec.host != "bouncer1":
            return spec
        command = agent_command(PYTHON, str(self.folder / "bouncer1" / "etc"))
        told = f" --systemctl {self.apps['bouncer1'].systemctl} --config "
        return LineSpec(spec.host, ("/bin/sh", "-c", command.replace(" --config ", told)))

    def agents_end(self, seconds: float = 60.0) -> None:
        super().agents_end(seconds)
        until(lambda: not any(app.agents() for app in self.apps.values()), "no agent works", seconds=seconds)

    def close(self) -> None:
        for app in self.apps.values():
            app.end()
        super().close()


@pytest.fixture(scope="module")
def two_services(module_lab: Lab) -> t.Iterator[ServicesSite]:
    """A database host, a bouncer host, and two hosts with nothing but services."""
    with contextlib.closing(ServicesSite(module_lab)) as made:
        yield made


@pytest.fixture
def swapped_with_services(site: ServicesSite) -> t.Iterator[tuple[int, int]]:
    """The live database and one to swap in; both services run before and after, and no acknowledged write is lost."""
    for name in site.oids():
        if name != LIVE:
            site.drop(name)
    site.up()
    yield site.oid(LIVE), site.make()
    until(lambda: all(site.pids().values()), "the services run again")
    site.agents_end()
    assert [app.note() for app in site.apps.values()] == [[], [], []]
    assert site.paused() == []
    for service in site.services:
        assert site.writes(service)
        assert site.acknowledged(service) - site.written() == set()
        (site.app(service).folder / f"{service.unit}.jsonl").unlink()
        site.app(service).run("stop", service.unit)
        until(functools.partial(site.ended, service), "it has ended")
