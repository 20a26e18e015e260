# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Instances made, taken over, started and reloaded for real. Debian's tools and psql are the oracles."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._command import CommandResult, SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._module import Result
from ansible_collections.hms.postgres.plugins.module_utils._provision import instance_apply
from ansible_collections.hms.postgres.plugins.module_utils._provision.instance import instance_manager
from ansible_collections.hms.postgres.plugins.module_utils._provision.instance_model import InstanceWish
from ansible_collections.hms.postgres.tests.real.lab import (
    OS_USER,
    VERSION,
    Instance,
    Lab,
    as_postgres,
    listed_instances,
    run,
)

CONTROLDATA = f"/usr/lib/postgresql/{VERSION}/bin/pg_controldata"


def wish_for(instance: Instance, **values: t.Any) -> InstanceWish:
    return InstanceWish(
        version=instance.version,
        name=instance.name,
        data_directory=str(instance.data),
        socket_directory=str(instance.sockets),
        **{"start_conf": "manual", "port": instance.port, **values},
    )


def ensure(wish: InstanceWish, *, check_mode: bool = False, **changes: t.Any) -> Result:
    manager = instance_manager(os_user=OS_USER)
    return manager.ensure(dataclasses.replace(wish, **changes), check_mode=check_mode)


def actions(result: Result) -> list[str]:
    found = [action["id"] for action in result.values["actions"]]
    assert result.changed == bool(found)
    return found


def listed(instance: Instance) -> list[str]:
    """The instance's line in Debian's list."""
    return next((line for line in listed_instances() if line[1] == instance.name), [])


def refused(wish: InstanceWish, **changes: t.Any) -> Refused:
    with pytest.raises(Refused) as caught:
        ensure(wish, **changes)
    return caught.value


def test_a_new_instance_in_four_steps(lab: Lab) -> None:
    instance = lab.plan()
    wish = wish_for(instance, state="started")
    assert actions(ensure(wish, check_mode=True)) == ["create", "start"]
    assert listed(instance) == [], "a plan touches nothing"
    assert not instance.data.exists()
    made = ensure(wish)
    assert actions(made) == ["create", "start"]
    assert listed(instance)[2:6] == [str(instance.port), "online", OS_USER, str(instance.data)]
    assert instance.sql("SHOW data_checksums; SHOW server_encoding; SELECT datcollate FROM pg_database") == (
        "on\nUTF8\nC.UTF-8\nC.UTF-8\nC.UTF-8"
    )
    assert (made.values["instance"]["role"], made.values["created"]) == ("primary", True)
    assert actions(ensure(wish, check_mode=True)) == []
    assert actions(ensure(wish)) == []
    assert ensure(wish).warnings == ()
    assert not pathlib.Path(wish.creation_marker).exists()


def test_a_clone_is_taken_over_as_it_is(lab: Lab) -> None:
    """Also one that doesn't run initdb's hooks: the configuration is made, the data isn't touched."""
    primary = lab.primary()
    clone = lab.plan()
    shutil.chown(clone.folder, OS_USER, OS_USER)
    source = ["-h", str(primary.sockets), "-p", str(primary.port), "-D", str(clone.data), "-R", "-c", "fast"]
    as_postgres("pg_basebackup", *source)
    before = run(CONTROLDATA, str(clone.data))
    wish = wish_for(clone, initialise=False)
    assert actions(ensure(wish, check_mode=True)) == ["adopt"]
    assert actions(ensure(wish)) == ["adopt"]
    assert run(CONTROLDATA, str(clone.data)) == before
    assert listed(clone)[3:6] == ["down,recovery", OS_USER, str(clone.data)]
    assert actions(ensure(wish)) == []
    lab.configure(clone)
    started = ensure(wish, state="started")
    assert actions(started) == ["start"]
    assert started.values["instance"]["role"] == "standby"
    assert clone.sql("SELECT pg_is_in_recovery()") == "t"
    assert [entry.name for entry in clone.folder.iterdir() if entry.name.startswith(".")] == []


class _FailingRunner(SystemRunner):
    """Everything works but one program."""

    def __init__(self, program: str) -> None:
        self.program = program

    def run(self, argv: t.Sequence[str], **how: t.Any) -> CommandResult:
        if os.path.basename(argv[0]) == self.program:
            raise HmsError(f"{self.program} was killed")
        return super().run(argv, **how)


def test_taking_over_never_endangers_the_data(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_createcluster removes its data directory when it fails; here it fails, and then the step after it."""
    original = lab.primary()
    original.sql("CREATE TABLE precious AS SELECT 1 AS id")
    original.stop()
    data = sorted(path.name for path in original.data.iterdir())
    shutil.rmtree(original.config)
    wish = wish_for(original, initialise=False)
    original.log.unlink()
    original.log.mkdir()
    with pytest.raises(HmsError, match="directory, not a file"):
        ensure(wish)
    assert sorted(path.name for path in original.data.iterdir()) == data
    original.log.rmdir()

    monkeypatch.setattr(
        "ansible_collections.hms.postgres.plugins.module_utils._provision.instance.SystemRunner",
        lambda: _FailingRunner("pg_conftool"),
    )
    with pytest.raises(HmsError, match="pg_conftool was killed"):
        ensure(wish)
    monkeypatch.undo()
    assert sorted(path.name for path in original.data.iterdir()) == data
    assert actions(ensure(wish)) == ["finish_adoption"]
    lab.configure(original)
    assert actions(ensure(wish, state="started")) == ["start"]
    assert original.sql("SELECT id FROM precious") == "1"


def test_a_creation_that_was_killed_is_begun_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    instance = lab.plan()
    wish = wish_for(instance)

    def killed(_path: str) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(instance_apply, "remove_file", killed)
    with pytest.raises(KeyboardInterrupt):
        ensure(wish)
    monkeypatch.undo()
    (instance.data / "global" / "pg_control").unlink()
    assert actions(ensure(wish)) == ["clear_interrupted_creation", "create"]
    assert actions(ensure(wish)) == []
    assert actions(ensure(wish, state="started")) == ["start"]


def test_a_server_reads_what_is_on_disk(lab: Lab) -> None:
    instance = lab.primary()
    wish = wish_for(instance, state="started")
    assert actions(ensure(wish)) == []
    fragment = instance.config / "conf.d" / "50-test.conf"
    fragment.write_text("work_mem = '7MB'\n")
    assert actions(ensure(wish, check_mode=True)) == ["reload"]
    assert instance.sql("SHOW work_mem") == "4MB"
    assert actions(ensure(wish)) == ["reload"]
    assert instance.sql("SHOW work_mem") == "7MB"
    assert actions(ensure(wish)) == []
    fragment.unlink()
    assert actions(ensure(wish)) == ["reload"]
    assert instance.sql("SHOW work_mem") == "4MB"
    with open(instance.config / "pg_hba.conf", "a", encoding="utf-8") as rules:
        rules.write("host all all 10.9.9.9/32 reject\n")
    assert actions(ensure(wish)) == ["reload"]
    assert actions(ensure(wish)) == []


def test_a_setting_that_needs_a_restart_waits_until_it_is_allowed(lab: Lab) -> None:
    instance = lab.primary()
    wish = wish_for(instance, state="started")
    pid = instance.pid
    fragment = instance.config / "conf.d" / "50-test.conf"
    fragment.write_text("max_connections = 77\n")
    first = ensure(wish)
    assert actions(first) == ["reload"]
    pending = [{"name": "max_connections", "running": "50", "configured": "77"}]
    assert first.values["pending_restart"] == pending
    assert "max_connections" in first.warnings[0]
    again = ensure(wish)
    assert (actions(again), again.values["pending_restart"]) == ([], pending)
    assert instance.pid == pid
    assert actions(ensure(wish, restart="allowed", check_mode=True)) == ["restart"]
    restarted = ensure(wish, restart="allowed")
    assert (actions(restarted), restarted.values["pending_restart"]) == (["restart"], [])
    assert instance.sql("SHOW max_connections") == "77"
    assert actions(ensure(wish, restart="allowed")) == []
    fragment.write_text("max_connections = 88\n")
    assert actions(ensure(wish)) == ["reload"]
    fragment.write_text("max_connections = 77\n")
    taken_back = ensure(wish)
    assert (actions(taken_back), taken_back.values["pending_restart"]) == (["reload"], [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("work_mem = 'much'\n", "50-test.conf:1: work_mem = much"),
        ("work_memory = '1MB'\n", "50-test.conf:1: work_memory = 1MB: unrecognized"),
        ("max_wal_senders = 'x'\nshared_buffers = '20MB'\n", "max_wal_senders = x"),
    ],
)
def test_a_configuration_that_is_wrong_is_not_loaded(module_primary: Instance, text: str, words: str) -> None:
    fragment = module_primary.config / "conf.d" / "50-test.conf"
    fragment.write_text(text)
    try:
        error = refused(wish_for(module_primary, state="started"))
        assert error.reason == "config_invalid"
        assert words in error.message
        assert "shared_buffers" not in error.message, "what waits for a restart is not wrong"
    finally:
        fragment.unlink()
    ensure(wish_for(module_primary, state="started"))


def test_a_bad_rule_of_pg_hba_is_named(module_primary: Instance) -> None:
    rules = module_primary.config / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(before + "host all all nowhere scram\n")
    try:
        error = refused(wish_for(module_primary, state="started"))
        assert f"{rules}:6" in error.message
    finally:
        rules.write_text(before)
    ensure(wish_for(module_primary, state="started"))


@pytest.fixture(scope="module")
def module_primary(module_lab: Lab) -> Instance:
    """One instance for tests that leave it as it was."""
    return module_lab.primary()


def test_a_port_that_a_stranger_has(lab: Lab) -> None:
    instance = lab.plan()
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as `port_is_free` looks: TIME_WAIT is free
        stranger.bind(("127.0.0.1", instance.port))
        stranger.listen()
        error = refused(wish_for(instance))
    assert error.reason == "port_taken"
    assert f"pid {os.getpid()}" in error.message
    assert not instance.data.exists()


def test_a_port_and_a_data_directory_of_another_instance(lab: Lab, module_primary: Instance) -> None:
    instance = lab.plan()
    assert module_primary.name in refused(wish_for(instance), port=module_primary.port).message
    taken = refused(wish_for(instance), data_directory=str(module_primary.data))
    assert taken.reason == "data_directory_taken"
    elsewhere = refused(wish_for(module_primary), data_directory="/var/lib/elsewhere")
    assert elsewhere.reason == "other_data_directory"


def test_data_directories_that_are_not_ours(lab: Lab) -> None:
    instance = lab.plan()
    instance.data.mkdir()
    letter = instance.data / "letter.txt"
    letter.write_text("to a friend")
    error = refused(wish_for(instance))
    assert (error.reason, "letter.txt" in error.message) == ("data_directory_not_ours", True)
    assert letter.read_text() == "to a friend"
    letter.unlink()
    (instance.data / "PG_VERSION").write_text("13\n")
    assert "part of a cluster" in refused(wish_for(instance)).message
    (instance.data / "global").mkdir()
    (instance.data / "global" / "pg_control").write_bytes(b"\0" * 8192)
    with pytest.raises(HmsError):
        ensure(wish_for(instance))
    shutil.rmtree(instance.data)
    instance.data.write_text("a file")
    assert refused(wish_for(instance)).reason == "data_directory_not_ours"
    assert listed(instance) == []


def test_a_version_that_is_not_installed(lab: Lab) -> None:
    instance = lab.plan()
    error = refused(wish_for(instance), version=99)
    assert (error.reason, "postgresql-99" in error.next_step) == ("not_installed", True)
    assert actions(ensure(wish_for(instance), version=99, check_mode=True)) == ["create"]


def test_no_data_where_it_should_have_been_cloned(lab: Lab) -> None:
    instance = lab.plan()
    wish = wish_for(instance, initialise=False)
    assert refused(wish).reason == "no_data"
    assert actions(ensure(wish, check_mode=True)) == ["adopt"]


def test_a_fenced_instance_stays_down(lab: Lab) -> None:
    instance = lab.primary(start=False)
    wish = wish_for(instance, state="started")
    (instance.config / "start.conf").write_text("disabled\n")
    assert refused(wish).reason == "instance_disabled"
    assert instance.pid is None
    assert actions(ensure(wish, state="present")) == []


def test_another_port_is_set_and_waits_for_a_restart(lab: Lab) -> None:
    instance = lab.primary()
    wish = wish_for(instance, state="started", port=lab.port())
    changed = ensure(wish)
    assert actions(changed) == ["set_port"]
    assert [setting["name"] for setting in changed.values["pending_restart"]] == ["port"]
    assert listed(instance)[2] == str(wish.port)
    assert actions(ensure(wish, restart="allowed")) == ["restart"]
    assert dataclasses.replace(instance, port=wish.port).sql("SHOW port") == str(wish.port)
    assert actions(ensure(wish)) == []


def test_a_program_that_was_replaced_under_a_running_server_is_said(lab: Lab) -> None:
    """A server runs from a copy of the programs, and the copy goes away, as dpkg does it in an upgrade."""
    instance = lab.primary(start=False)
    usr = lab.folder / "usr"
    programs = usr / "lib" / "postgresql" / str(VERSION)
    (programs / "bin").mkdir(parents=True)
    for name in ("postgres", "pg_ctl"):
        shutil.copy2(f"/usr/lib/postgresql/{VERSION}/bin/{name}", programs / "bin")
    (programs / "lib").symlink_to(f"/usr/lib/postgresql/{VERSION}/lib")
    (usr / "share").symlink_to("/usr/share")
    config = f"-c config_file={instance.config}/postgresql.conf"
    start = [str(programs / "bin" / "pg_ctl"), "-D", str(instance.data), "-l", str(instance.log), "-w", "-s"]
    as_postgres(*start, "-o", config, "start")
    (programs / "bin" / "postgres").unlink()
    pid = instance.pid
    found = ensure(wish_for(instance, state="started", restart="allowed"))
    assert actions(found) == [], "never restarted for this, not even where restarting is allowed"
    assert found.values["instance"]["binary_replaced"] is True
    assert "was replaced" in found.warnings[0]
    assert instance.pid == pid


def test_missing_checksums_are_said(lab: Lab) -> None:
    instance = lab.primary(start=False, checksums=False)
    assert "no data checksums" in ensure(wish_for(instance)).warnings[0]


def test_what_is_told_of_instances(module_primary: Instance) -> None:
    manager = instance_manager(os_user=OS_USER)
    told = manager.info(wish_for(module_primary)).values["instance"]
    control = run(CONTROLDATA, str(module_primary.data))
    assert f"Database system identifier:           {told['system_identifier']}" in control
    assert (told["running"], told["pid"], told["timeline"]) == (True, module_primary.pid, 1)
    nothing = manager.info(InstanceWish(version=VERSION, name="hmstest.none", port=1, data_directory="/nonexistent"))
    assert (nothing.values["instance"]["exists"], nothing.values["instance"]["role"]) == (False, "none")


def test_the_module_as_ansible_runs_it(lab: Lab) -> None:
    """One round through Ansible itself: arguments, check mode, diff, and an error as a runbook."""
    root = pathlib.Path(__file__).resolve().parents[2]
    instance = lab.plan()
    arguments = f"version={VERSION} name={instance.name} port={instance.port} start_conf=manual"
    program = str(pathlib.Path(sys.executable).parent / "ansible")

    def ansible(more: str, *options: str) -> str:
        argv = [program, "-i", "localhost,", "-c", "local", "localhost", *options]
        argv += ["-m", "hms.postgres.pg_instance", "-a", f"{arguments} {more}"]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(root / "ansible.cfg"), "LC_ALL": "C.UTF-8"}
        done = subprocess.run(argv, cwd=root, env=environment, capture_output=True, text=True, timeout=100, check=False)
        return done.stdout + done.stderr

    planned = ansible(f"data_directory={instance.data} socket_directory={instance.sockets}", "--check", "--diff")
    assert "CHANGED" in planned
    assert '+ "exists": true' in planned
    assert listed(instance) == []
    failed = ansible("data_directory=/etc")
    assert "FAILED" in failed
    assert "reason: data_directory_not_ours" in failed
    assert "next_step:" in failed
