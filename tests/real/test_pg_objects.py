# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Roles, databases and rights on a real server. Who may do what is tried out by logging in with psql."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import ConnectionFailed, HmsError
from ansible_collections.hms.postgres.plugins.module_utils._module import Result
from ansible_collections.hms.postgres.plugins.module_utils._provision.objects import objects_manager
from ansible_collections.hms.postgres.plugins.module_utils._provision.objects_model import (
    DatabaseWish,
    ObjectsWish,
    RoleWish,
)
from ansible_collections.hms.postgres.tests.real.lab import OS_USER, Instance, Lab, until

REWIND = (
    "pg_catalog.pg_ls_dir(text,boolean,boolean)",
    "pg_catalog.pg_stat_file(text,boolean)",
    "pg_catalog.pg_read_binary_file(text)",
    "pg_catalog.pg_read_binary_file(text,bigint,bigint,boolean)",
)
PASSWORDS = {
    "h_owner": "the owner's pass\\word",
    "h_app": "Straße ½ \u00a0 of äpp",
    "h_reader": "reader reader",
    "mon": "monitor monitor",
    "pool": "pooler pooler",
    "repl": "replication too",
    "stranger": "not in any list",
}
ROLES = (
    RoleWish("h_owner", password=PASSWORDS["h_owner"]),
    RoleWish("h_app", password=PASSWORDS["h_app"]),
    RoleWish("h_reader", password=PASSWORDS["h_reader"], connection_limit=5),
    RoleWish("mon", password=PASSWORDS["mon"], member_of=("pg_monitor",)),
    RoleWish("pool", password=PASSWORDS["pool"]),
    RoleWish("repl", password=PASSWORDS["repl"], replication=True, execute=REWIND),
    RoleWish("stranger", password=PASSWORDS["stranger"]),
)
DATABASE = DatabaseWish(
    "h",
    "h_owner",
    writers=("h_app",),
    readers=("h_reader",),
    monitor="mon",
    pooler="pool",
    schemas=("public", "clinic"),
)
WISH = ObjectsWish(ROLES, (DATABASE,))


def ensure(instance: Instance, wish: ObjectsWish = WISH, *, check_mode: bool = False) -> Result:
    manager = objects_manager(
        host=str(instance.sockets), port=instance.port, os_user=OS_USER, maintenance_database="postgres"
    )
    return manager.ensure(wish, check_mode=check_mode)


def actions(result: Result) -> list[str]:
    found = [action["id"] for action in result.values["actions"]]
    assert result.changed == bool(found)
    return found


@pytest.fixture(scope="module")
def server(module_lab: Lab) -> Instance:
    """A server with everything declared, with a table made by the owner before and one after."""
    instance = module_lab.primary(log_statement="all", log_min_duration_statement="0")
    instance.sql("CREATE ROLE h_owner LOGIN")
    instance.sql("CREATE DATABASE h OWNER h_owner TEMPLATE template0")
    instance.sql("SET ROLE h_owner; CREATE TABLE public.early (id serial, what text)", dbname="h")
    planned = ensure(instance, check_mode=True)
    assert instance.sql("SELECT count(*) FROM pg_roles WHERE rolname = 'h_app'") == "0", "a plan touches nothing"
    done = ensure(instance)
    assert [action["what"] for action in done.values["actions"]] == [
        action["what"] for action in planned.values["actions"]
    ]
    return instance


def login(server: Instance, user: str, statement: str, *, dbname: str = "h") -> str:
    return server.login(
        server.conninfo(user, dbname=dbname, password=PASSWORDS[user].replace("\\", "\\\\").replace("'", "\\'")),
        statement,
    )


def test_a_second_run_finds_nothing_to_do(server: Instance) -> None:
    assert actions(ensure(server, check_mode=True)) == []
    assert actions(ensure(server)) == []


@pytest.mark.parametrize("user", ["h_owner", "h_app", "h_reader", "mon", "pool"])
def test_passwords_work(server: Instance, user: str) -> None:
    """libpq prepares the password by itself; ours must come out the same, umlauts and all."""
    assert login(server, user, "SELECT current_user") == user


def test_no_password_reached_the_server(server: Instance) -> None:
    """Although this server logs every statement."""
    log = server.log.read_text(encoding="utf-8", errors="replace")
    assert not [word for word in PASSWORDS.values() if word in log]
    assert "SCRAM-SHA-256$" not in log
    stored = server.sql("SELECT DISTINCT substr(rolpassword, 1, 18) FROM pg_authid WHERE rolpassword IS NOT NULL")
    assert stored == "SCRAM-SHA-256$4096"


@pytest.mark.parametrize(
    ("user", "statement", "answer"),
    [
        ("h_owner", "CREATE TABLE clinic.late (id serial, what text)", ""),
        ("h_owner", "CREATE SCHEMA ward; CREATE TABLE ward.bed (id serial, what text)", ""),
        ("h_app", "INSERT INTO clinic.late (what) VALUES ('x') RETURNING id", "1"),
        ("h_app", "INSERT INTO ward.bed (what) VALUES ('x') RETURNING id", "1"),
        ("h_app", "INSERT INTO public.early (what) VALUES ('x') RETURNING id", "1"),
        ("h_app", "UPDATE public.early SET what = 'y'; DELETE FROM clinic.late", ""),
        ("h_app", "CREATE TEMPORARY TABLE scratch (id int)", ""),
        ("h_reader", "SELECT what FROM public.early", "y"),
        ("h_reader", "SELECT count(*) FROM clinic.late, ward.bed", "0"),
        ("mon", "SELECT count(*) > 0 FROM pg_stat_activity WHERE query IS NOT NULL", "t"),
        ("mon", "INSERT INTO hms.write_probe (operation, source, seq) VALUES ('o', 's', 1) RETURNING seq", "1"),
        ("mon", "SELECT count(*) FROM hms.write_probe", "1"),
        ("mon", "DELETE FROM hms.write_probe RETURNING seq", "1"),
        ("pool", "SELECT usename FROM hms.pgbouncer_auth('h_app')", "h_app"),
        ("pool", "SELECT passwd LIKE 'SCRAM-SHA-256$4096:%' FROM hms.pgbouncer_auth('mon')", "t"),
    ],
)
def test_what_roles_may_do(server: Instance, user: str, statement: str, answer: str) -> None:
    assert login(server, user, statement) == answer


@pytest.mark.parametrize(
    ("user", "statement", "words"),
    [
        ("stranger", "SELECT 1", "does not have CONNECT privilege"),
        ("repl", "SELECT 1", "does not have CONNECT privilege"),
        ("h_app", "CREATE TABLE public.mine (id int)", "permission denied for schema public"),
        ("h_app", "DROP TABLE public.early", "must be owner"),
        ("h_app", "TRUNCATE public.early", "permission denied"),
        ("h_app", "SELECT * FROM hms.pgbouncer_auth('h_owner')", "permission denied for schema hms"),
        ("h_reader", "INSERT INTO public.early (what) VALUES ('x')", "permission denied for table early"),
        ("h_reader", "SELECT nextval('public.early_id_seq')", "permission denied for sequence"),
        ("h_reader", "CREATE TEMPORARY TABLE scratch (id int)", "permission denied"),
        ("mon", "SELECT * FROM public.early", "permission denied for table early"),
        ("mon", "UPDATE hms.write_probe SET seq = 2", "permission denied"),
        ("mon", "SELECT * FROM hms.pgbouncer_auth('h_owner')", "permission denied for function"),
        ("pool", "SELECT * FROM hms.write_probe", "permission denied for table"),
        ("h_owner", "CREATE ROLE other", "permission denied"),
        ("h_owner", "SELECT rolpassword FROM pg_authid", "permission denied"),
        ("h_owner", "ALTER TABLE hms.write_probe ADD COLUMN x int", "permission denied for schema hms"),
    ],
)
def test_what_roles_may_not_do(server: Instance, user: str, statement: str, words: str) -> None:
    assert words in login(server, user, statement)


def test_whose_verifiers_the_pooler_gets(server: Instance) -> None:
    server.sql("ALTER ROLE stranger VALID UNTIL '2001-01-01'")
    server.sql("CREATE ROLE boss SUPERUSER LOGIN PASSWORD 'boss boss boss'")
    try:
        asked = "SELECT usename FROM unnest(ARRAY['postgres','boss','repl','stranger','h_owner','nobody']) u, "
        assert login(server, "pool", asked + "LATERAL hms.pgbouncer_auth(u)") == "h_owner"
    finally:
        server.sql("DROP ROLE boss")
        server.sql("ALTER ROLE stranger VALID UNTIL 'infinity'")


def test_pg_rewinds_functions(server: Instance) -> None:
    asked = "SELECT length(pg_read_binary_file('PG_VERSION')), size FROM pg_stat_file('PG_VERSION', true)"
    assert login(server, "repl", asked, dbname="postgres") == "3|3"
    assert "permission denied" in login(server, "stranger", asked, dbname="postgres")


@pytest.mark.parametrize(
    ("drift", "expected"),
    [
        ("ALTER ROLE h_app PASSWORD 'something else'", ["set_password"]),
        ("ALTER ROLE h_app SUPERUSER CREATEDB", ["alter_role"]),
        ("ALTER ROLE h_reader CONNECTION LIMIT -1", ["alter_role"]),
        ("GRANT pg_read_all_data TO h_app", ["revoke_membership"]),
        ("REVOKE pg_monitor FROM mon", ["grant_membership"]),
        ("GRANT CONNECT ON DATABASE h TO PUBLIC", ["revoke_public"]),
        ("REVOKE CONNECT ON DATABASE h FROM h_reader", ["grant_database"]),
        ("GRANT CREATE ON SCHEMA public TO PUBLIC", ["revoke_public"]),
        ("REVOKE USAGE ON SCHEMA clinic FROM h_app", ["grant_schema"]),
        ("ALTER DEFAULT PRIVILEGES FOR ROLE h_owner REVOKE SELECT ON TABLES FROM h_reader", ["default_privileges"]),
        ("REVOKE ALL ON public.early FROM h_reader", ["grant_relations"]),
        ("GRANT EXECUTE ON FUNCTION hms.pgbouncer_auth(text) TO PUBLIC", ["revoke_public"]),
        ("ALTER FUNCTION hms.pgbouncer_auth(text) RESET search_path", ["create_login_function"]),
        ("ALTER FUNCTION hms.pgbouncer_auth(text) SECURITY INVOKER", ["create_login_function"]),
        ("REVOKE EXECUTE ON FUNCTION pg_stat_file(text,boolean) FROM repl", None),
    ],
)
def test_what_drifted_is_brought_back(server: Instance, drift: str, expected: list[str] | None) -> None:
    if expected is None:  # functions of the whole cluster are granted in the maintenance database
        server.sql(drift)
        expected = ["grant_execute"]
    else:
        server.sql(drift, dbname="h")
    assert actions(ensure(server, check_mode=True)) == expected
    assert actions(ensure(server)) == expected
    assert actions(ensure(server)) == []


def test_a_single_right_that_was_taken_away_stays_away(server: Instance) -> None:
    """An audit log, for instance: the application may add to it, and no more."""
    server.sql("SET ROLE h_owner; CREATE TABLE public.audit_log (id int)", dbname="h")
    server.sql("REVOKE UPDATE, DELETE ON public.audit_log FROM h_app", dbname="h")
    assert actions(ensure(server)) == []
    assert "permission denied" in login(server, "h_app", "DELETE FROM public.audit_log")


def test_rights_of_others_stay(server: Instance) -> None:
    server.sql("CREATE ROLE analyst LOGIN; GRANT CONNECT ON DATABASE h TO analyst; GRANT h_reader TO analyst")
    assert actions(ensure(server)) == []


def test_extensions(server: Instance) -> None:
    with_extension = ObjectsWish(ROLES, (dataclasses.replace(DATABASE, extensions=("plpgsql", "pg_trgm")),))
    assert actions(ensure(server, with_extension)) == ["create_extension"]
    assert actions(ensure(server, with_extension)) == []
    missing = ObjectsWish(ROLES, (dataclasses.replace(DATABASE, extensions=("no_such_thing",)),))
    with pytest.raises(HmsError, match="no_such_thing"):
        ensure(server, missing)


def test_an_unknown_function_is_refused(server: Instance) -> None:
    wish = ObjectsWish((RoleWish("repl", execute=("pg_catalog.pg_no_such(text)",), replication=True),))
    with pytest.raises(HmsError, match="no such function"):
        ensure(server, wish)


def test_a_failure_in_the_middle_is_made_good_by_the_next_run(lab: Lab) -> None:
    """The second database cannot be made: its template is in use. What was done before stays, and isn't done twice."""
    instance = lab.primary()
    bad = dataclasses.replace(DATABASE, name="second", locale="xx_XX")
    with pytest.raises(HmsError) as caught:
        ensure(instance, ObjectsWish(ROLES, (DATABASE, bad)))
    done = t.cast("list[dict[str, t.Any]]", caught.value.details["done"])
    assert caught.value.details["failed"]["id"] == "create_database"
    assert "create_role" in [action["id"] for action in done]
    assert actions(ensure(instance)) == []


def test_a_standby_is_left_to_replication(lab: Lab) -> None:
    primary = lab.primary()
    standby = lab.standby(primary)
    assert "standby" in ensure(standby).values["skipped_because"]
    assert actions(ensure(standby)) == []
    ensure(primary)
    until(lambda: standby.sql("SELECT count(*) FROM pg_roles WHERE rolname = 'repl'") == "1", "roles arrive")
    standby.promote()
    assert actions(ensure(standby)) == []


def test_a_server_that_is_down(lab: Lab) -> None:
    instance = lab.primary(start=False)
    with pytest.raises(ConnectionFailed):
        ensure(instance)
    planned = ensure(instance, check_mode=True)
    assert actions(planned)[0] == "create_role"
    assert "new, empty instance" in planned.warnings[0]
