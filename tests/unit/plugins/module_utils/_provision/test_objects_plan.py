# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import itertools
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import (
    ConnectionFailed,
    HmsError,
    Refused,
    ToolMissing,
)
from ansible_collections.hms.postgres.plugins.module_utils._provision import scram, support_schema
from ansible_collections.hms.postgres.plugins.module_utils._provision.objects import (
    ObjectsManager,
    apply_objects,
    objects_manager,
    wish_from_params,
)
from ansible_collections.hms.postgres.plugins.module_utils._provision.objects_model import (
    PUBLIC,
    DatabaseFacts,
    DatabaseWish,
    ObjectsAction,
    ObjectsFacts,
    ObjectsPlan,
    ObjectsWish,
    RelationFacts,
    RoleFacts,
    RoleWish,
    SchemaFacts,
    SupportFacts,
)
from ansible_collections.hms.postgres.plugins.module_utils._provision.objects_plan import plan_objects

SALT = b"0123456789abcdef"
SECRET = "a long secret"
OWNER = RoleWish("h_owner", password=SECRET)
APP = RoleWish("h_app")
READER = RoleWish("h_reader")
MONITOR = RoleWish("mon", member_of=("pg_monitor",))
POOLER = RoleWish("pool")
ROLES = (OWNER, APP, READER, MONITOR, POOLER)
DATABASE = DatabaseWish("h", "h_owner", writers=("h_app",), readers=("h_reader",), monitor="mon", pooler="pool")
WISH = ObjectsWish(ROLES, (DATABASE,))

WRITE, READ = ("SELECT", "INSERT", "UPDATE", "DELETE"), ("SELECT",)


def plan(wish: ObjectsWish, facts: ObjectsFacts) -> ObjectsPlan:
    return plan_objects(wish, facts, salts=lambda: SALT)


def role_facts() -> dict[str, RoleFacts]:
    verifier = scram.build(SECRET, salt=b"another salt....")
    return {
        "postgres": RoleFacts(login=True, superuser=True),
        "pg_monitor": RoleFacts(login=False),
        "h_owner": RoleFacts(login=True, verifier=verifier),
        "h_app": RoleFacts(login=True),
        "h_reader": RoleFacts(login=True),
        "mon": RoleFacts(login=True, member_of=frozenset({"pg_monitor"})),
        "pool": RoleFacts(login=True),
    }


def default_grants() -> frozenset[tuple[str, str, str, str]]:
    found = [("h_owner", "r", "h_app", right) for right in WRITE]
    found += [("h_owner", "S", "h_app", right) for right in ("USAGE", "SELECT", "UPDATE")]
    found += [("h_owner", kind, "h_reader", "SELECT") for kind in ("r", "S")]
    found += [("h_owner", "n", role, "USAGE") for role in ("h_app", "h_reader")]
    return frozenset(found)


SUPPORT = SupportFacts(
    table_definition=support_schema.TABLE_COLUMNS,
    table_grants=frozenset(("mon", right) for right in support_schema.PROBE_PRIVILEGES),
    function_body=support_schema.FUNCTION_BODY,
    function_options=support_schema.FUNCTION_OPTIONS,
    function_grants=frozenset({("pool", "EXECUTE")}),
)
IN_PLACE = DatabaseFacts(
    owner="h_owner",
    grants=frozenset(
        {("h_app", "CONNECT"), ("h_app", "TEMPORARY"), ("h_reader", "CONNECT"), ("mon", "CONNECT"), ("pool", "CONNECT")}
    ),
    schemas={
        "public": SchemaFacts("pg_database_owner", frozenset({("h_app", "USAGE"), ("h_reader", "USAGE")})),
        "hms": SchemaFacts("postgres", frozenset({("mon", "USAGE"), ("pool", "USAGE")})),
    },
    default_grants=default_grants(),
    support=SUPPORT,
)
THERE = ObjectsFacts(roles=role_facts(), databases={"h": IN_PLACE})


def with_database(**values: t.Any) -> ObjectsFacts:
    return dataclasses.replace(THERE, databases={"h": dataclasses.replace(IN_PLACE, **values)})


def with_role(name: str, **values: t.Any) -> ObjectsFacts:
    roles = role_facts()
    roles[name] = dataclasses.replace(roles[name], **values)
    return dataclasses.replace(THERE, roles=roles)


def test_what_is_in_place_is_left_alone() -> None:
    assert plan(WISH, THERE) == ObjectsPlan()


def test_a_new_instance_gets_everything_in_an_order_that_works() -> None:
    made = plan(WISH, ObjectsFacts())
    identifiers = [action.id for action in made.actions]
    assert identifiers[:6] == ["create_role"] * 5 + ["grant_membership"]
    assert identifiers.index("create_database") == 6
    order = {name: identifiers.index(name) for name in identifiers}
    assert order["create_database"] < order["revoke_public"] < order["grant_database"] < order["grant_schema"]
    assert (
        order["create_schema"] < order["create_probe_table"] < order["create_login_function"] < order["grant_support"]
    )
    outside = {action.id for action in made.actions if action.database == "postgres"}
    assert outside == {
        "create_role",
        "grant_membership",
        "create_database",
        "revoke_public",
        "grant_database",
    }, "what needs the database itself runs in it"


def test_a_standby_plans_nothing() -> None:
    made = plan(WISH, ObjectsFacts(in_recovery=True))
    assert made.actions == ()
    assert "standby" in made.skipped


def test_a_password_never_stands_in_a_plan() -> None:
    made = plan(WISH, ObjectsFacts())
    statements = [statement for action in made.actions for statement in action.statements]
    assert not any(SECRET in statement for statement in statements)
    assert SECRET not in repr(WISH)
    assert "SCRAM" not in repr(made)
    shown = [action.as_dict() for action in made.actions]
    assert "SCRAM" not in repr(shown)
    assert shown[0]["statements"] == [], "the statement that holds a verifier is shown nowhere"
    assert shown[1]["statements"] != []


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param({"verifier": None}, ["set_password"], id="no password"),
        pytest.param({"verifier": "md5abc"}, ["set_password"], id="an old kind of hash"),
        pytest.param({"verifier": scram.build("other", salt=SALT)}, ["set_password"], id="another password"),
        pytest.param({"superuser": True}, ["alter_role"], id="superuser"),
        pytest.param({"createdb": True}, ["alter_role"], id="createdb"),
        pytest.param({"createrole": True}, ["alter_role"], id="createrole"),
        pytest.param({"bypassrls": True}, ["alter_role"], id="bypassrls"),
        pytest.param({"inherit": False}, ["alter_role"], id="noinherit"),
        pytest.param({"login": False}, ["alter_role"], id="nologin"),
        pytest.param({"replication": True}, ["alter_role"], id="replication"),
        pytest.param({"connection_limit": 3}, ["alter_role"], id="connection limit"),
        pytest.param({"member_of": frozenset({"pg_monitor"})}, ["revoke_membership"], id="a group too many"),
        pytest.param(
            {"superuser": True, "verifier": None}, ["alter_role", "set_password"], id="attributes, then the password"
        ),
    ],
)
def test_a_role_is_brought_into_line(found: dict[str, t.Any], expected: list[str]) -> None:
    assert [action.id for action in plan(WISH, with_role("h_owner", **found)).actions] == expected


def test_a_role_that_lacks_a_group_or_a_function() -> None:
    function = "pg_catalog.pg_ls_dir(text,boolean,boolean)"
    wish = ObjectsWish(
        (RoleWish("mon", member_of=("pg_monitor",), execute=(function,), login=False, replication=True),)
    )
    found = with_role("mon", member_of=frozenset(), login=False, replication=True)
    statements = [statement for action in plan(wish, found).actions for statement in action.statements]
    assert statements == ['GRANT "pg_monitor" TO "mon"', f'GRANT EXECUTE ON FUNCTION {function} TO "mon"']
    done = with_role("mon", login=False, replication=True, execute=frozenset({function}))
    assert plan(wish, done).actions == ()


def test_a_role_is_created_with_what_is_declared_and_no_more() -> None:
    wish = ObjectsWish((RoleWish("r", login=False, replication=True, connection_limit=2),))
    (action,) = plan(wish, ObjectsFacts()).actions
    (statement,) = action.statements
    assert statement == (
        'CREATE ROLE "r" NOLOGIN REPLICATION NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS INHERIT CONNECTION LIMIT 2'
    )


@pytest.mark.parametrize(
    ("found", "statement"),
    [
        pytest.param(
            with_database(owner="postgres"), 'ALTER DATABASE "h" OWNER TO "h_owner"', id="owner of the database"
        ),
        pytest.param(
            with_database(grants=IN_PLACE.grants | {(PUBLIC, "CONNECT")}),
            'REVOKE ALL ON DATABASE "h" FROM PUBLIC',
            id="everybody may connect",
        ),
        pytest.param(
            with_database(grants=IN_PLACE.grants - {("h_app", "TEMPORARY")}),
            'GRANT TEMPORARY ON DATABASE "h" TO "h_app"',
            id="a writer without temporary tables",
        ),
        pytest.param(
            with_database(
                schemas={
                    **IN_PLACE.schemas,
                    "public": SchemaFacts(
                        "pg_database_owner", IN_PLACE.schemas["public"].grants | {(PUBLIC, "CREATE")}
                    ),
                }
            ),
            'REVOKE CREATE ON SCHEMA "public" FROM PUBLIC',
            id="everybody may create",
        ),
        pytest.param(
            with_database(default_grants=default_grants() - {("h_owner", "r", "h_app", "DELETE")}),
            'ALTER DEFAULT PRIVILEGES FOR ROLE "h_owner" GRANT DELETE ON TABLES TO "h_app"',
            id="a right on future tables",
        ),
        pytest.param(
            with_database(
                relations=(
                    RelationFacts("public", "a", "table", frozenset({"h_reader"})),
                    RelationFacts("public", "B c", "table", frozenset({"h_reader"})),
                )
            ),
            'GRANT SELECT ON TABLE "public"."a", "public"."B c" TO "h_reader"',
            id="tables from before",
        ),
        pytest.param(
            with_database(relations=(RelationFacts("public", "s", "sequence", frozenset({"h_app"})),)),
            'GRANT USAGE, SELECT, UPDATE ON SEQUENCE "public"."s" TO "h_app"',
            id="a sequence from before",
        ),
        pytest.param(
            with_database(support=dataclasses.replace(SUPPORT, function_body="SELECT 1")),
            support_schema.CREATE_FUNCTION,
            id="another login function",
        ),
        pytest.param(
            with_database(support=dataclasses.replace(SUPPORT, function_options=("sql", "volatile"))),
            support_schema.CREATE_FUNCTION,
            id="a login function with other options",
        ),
        pytest.param(
            with_database(
                support=dataclasses.replace(SUPPORT, function_grants=SUPPORT.function_grants | {(PUBLIC, "EXECUTE")})
            ),
            "REVOKE ALL ON FUNCTION hms.pgbouncer_auth(text) FROM PUBLIC",
            id="everybody may ask for verifiers",
        ),
        pytest.param(
            with_database(support=dataclasses.replace(SUPPORT, table_grants=frozenset({("mon", "SELECT")}))),
            'GRANT INSERT, DELETE ON TABLE hms.write_probe TO "mon"',
            id="a monitor that cannot probe",
        ),
        pytest.param(
            with_database(support=dataclasses.replace(SUPPORT, table_definition=())),
            support_schema.CREATE_TABLE,
            id="no probe table",
        ),
    ],
)
def test_a_database_is_brought_into_line(found: ObjectsFacts, statement: str) -> None:
    (action,) = plan(WISH, found).actions
    assert action.statements == (statement,)


def test_a_long_list_of_tables_is_named_in_part() -> None:
    relations = tuple(RelationFacts("public", name, "table", frozenset({"h_app"})) for name in "abcd")
    (action,) = plan(WISH, with_database(relations=relations)).actions
    assert action.what == "grant SELECT, INSERT, UPDATE, DELETE on 4 existing table(s) in h to h_app"
    assert action.why == "it has no right on public.a, public.b, public.c …"


def test_schemas_and_extensions_are_created() -> None:
    database = dataclasses.replace(DATABASE, schemas=("public", "clinic"), extensions=("pg_trgm",))
    found = with_database(available_extensions=frozenset({"pg_trgm"}))
    statements = [s for action in plan(ObjectsWish(ROLES, (database,)), found).actions for s in action.statements]
    assert statements == [
        'CREATE SCHEMA "clinic" AUTHORIZATION "h_owner"',
        'GRANT USAGE ON SCHEMA "clinic" TO "h_app"',
        'GRANT USAGE ON SCHEMA "clinic" TO "h_reader"',
        'CREATE EXTENSION "pg_trgm"',
    ]
    done = with_database(
        extensions=frozenset({"pg_trgm"}),
        schemas={
            **IN_PLACE.schemas,
            "clinic": SchemaFacts("h_owner", frozenset({("h_app", "USAGE"), ("h_reader", "USAGE")})),
        },
    )
    assert plan(ObjectsWish(ROLES, (database,)), done).actions == ()


def test_a_database_without_monitor_and_pooler() -> None:
    database = DatabaseWish("h", "h_owner", writers=("h_owner", "h_app"))
    made = plan(ObjectsWish((OWNER, APP), (database,)), ObjectsFacts())
    granted = [action.what for action in made.actions if action.id.startswith("grant")]
    assert granted == [
        "grant CONNECT, TEMPORARY on the database h to h_app",
        "grant CONNECT, TEMPORARY on the database h to h_owner",
        "grant USAGE on the schema public in h to h_app",
    ]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (with_database(encoding="LATIN1"), "LATIN1"),
        (with_database(locale="en_US.UTF-8"), "en_US.UTF-8"),
        (with_database(support=dataclasses.replace(SUPPORT, table_definition=("other int",))), "hms.write_probe"),
    ],
)
def test_what_cannot_be_changed_is_said(found: ObjectsFacts, words: str) -> None:
    made = plan(WISH, found)
    assert made.actions == ()
    assert words in made.warnings[0]


def test_an_empty_password_is_said() -> None:
    made = plan(ObjectsWish((RoleWish("r", password=""),)), ObjectsFacts())
    assert "empty password" in made.warnings[0]


@pytest.mark.parametrize(
    ("wish", "facts", "reason"),
    [
        pytest.param(ObjectsWish((RoleWish(""),)), ObjectsFacts(), "bad_name", id="no name"),
        pytest.param(ObjectsWish((RoleWish("é" * 32),)), ObjectsFacts(), "bad_name", id="64 bytes"),
        pytest.param(ObjectsWish((RoleWish("r"), RoleWish("r"))), ObjectsFacts(), "declared_twice", id="twice"),
        pytest.param(ObjectsWish((RoleWish("pg_x"),)), ObjectsFacts(), "reserved_name", id="pg_"),
        pytest.param(ObjectsWish((RoleWish("public"),)), ObjectsFacts(), "reserved_name", id="public"),
        pytest.param(
            ObjectsWish((RoleWish("r", execute=("f(); DROP TABLE x",)),)),
            ObjectsFacts(),
            "bad_function",
            id="injection",
        ),
        pytest.param(
            ObjectsWish(ROLES, (dataclasses.replace(DATABASE, name="template1"),)),
            ObjectsFacts(),
            "reserved_name",
            id="PostgreSQL's own database",
        ),
        pytest.param(ObjectsWish((RoleWish("postgres"),)), THERE, "superuser_declared", id="the superuser"),
        pytest.param(ObjectsWish((OWNER,), (DATABASE,)), ObjectsFacts(), "unknown_role", id="a role that isn't there"),
        pytest.param(ObjectsWish((RoleWish("r", member_of=("x",)),)), THERE, "unknown_role", id="an unknown group"),
        pytest.param(
            ObjectsWish((RoleWish("r", member_of=("pg_x",)),)), THERE, "unknown_role", id="an unknown pg_ group"
        ),
        pytest.param(
            WISH, dataclasses.replace(THERE, missing_functions=frozenset({"a.b()"})), "unknown_function", id="function"
        ),
        pytest.param(
            ObjectsWish(ROLES, (dataclasses.replace(DATABASE, extensions=("postgis",)),)),
            THERE,
            "extension_missing",
            id="an extension that isn't installed",
        ),
        pytest.param(
            WISH,
            with_database(support=dataclasses.replace(SUPPORT, foreign_owner="mallory")),
            "support_schema_not_ours",
            id="somebody else's schema hms",
        ),
    ],
)
def test_what_is_refused(wish: ObjectsWish, facts: ObjectsFacts, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        plan(wish, facts)
    assert caught.value.reason == reason
    assert caught.value.state == "Nothing was touched."
    assert caught.value.next_step


def test_predefined_roles_are_taken_on_trust_when_there_is_no_server() -> None:
    assert plan(ObjectsWish((RoleWish("r", member_of=("pg_monitor",)),)), ObjectsFacts()).actions


def test_the_declaration_from_arguments() -> None:
    wish = wish_from_params(
        {
            "roles": [{"name": "r", "password": None, "member_of": ["g"]}],
            "databases": [{"name": "d", "owner": "r", "writers": ["w"], "monitor": None}],
        }
    )
    assert wish == ObjectsWish((RoleWish("r", member_of=("g",)),), (DatabaseWish("d", "r", writers=("w",)),))


class Session:
    """Takes statements; fails at the one it is told."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.statements: list[str] = []
        self.closed = False

    def execute(self, sql: str, _params: t.Any = None) -> None:
        if self.failing and self.failing in sql:
            raise HmsError(f"no: {sql}", reason="sql_failed", details={"sqlstate": "42501", "statement": sql})
        self.statements.append(sql)

    def rows(self, _sql: str, _params: t.Any = None) -> list[tuple[t.Any, ...]]:
        raise AssertionError("applying does not look")

    row = value = rows

    def close(self) -> None:
        self.closed = True


def action(identifier: str, statement: str, *, database: str = "postgres", secret: bool = False) -> ObjectsAction:
    return ObjectsAction(identifier, database, f"do {identifier}", "because", (statement,), secret)


def test_a_plan_is_carried_out_over_one_quiet_connection_for_each_database() -> None:
    sessions: dict[str, Session] = {}

    def opener(database: str) -> t.Any:
        assert database not in sessions, "one connection for each"
        sessions[database] = Session()
        return sessions[database]

    steps = (action("a", "A"), action("b", "B", database="h"), action("c", "C"))
    apply_objects(ObjectsPlan(steps), opener=opener)
    assert [session.statements[1:] for session in sessions.values()] == [["A", "C"], ["B"]]
    assert all("log_statement" in session.statements[0] and session.closed for session in sessions.values())


def test_a_failure_says_what_was_done() -> None:
    session = Session("B")
    with pytest.raises(HmsError) as caught:
        apply_objects(ObjectsPlan((action("a", "A"), action("b", "B"))), opener=lambda _name: t.cast("t.Any", session))
    error = caught.value
    assert [known["id"] for known in error.details["done"]] == ["a"]
    assert (error.phase, error.details["failed"]["id"]) == ("apply", "b")
    assert error.state.startswith("1 action")
    assert session.closed


def test_a_failure_tells_no_secret() -> None:
    with pytest.raises(HmsError) as caught:
        apply_objects(
            ObjectsPlan((action("set_password", "PASSWORD 'SCRAM-SHA-256$x'", secret=True),)),
            opener=lambda _name: t.cast("t.Any", Session("SCRAM")),
        )
    assert caught.value.message == "do set_password failed with SQLSTATE 42501."
    assert "SCRAM" not in repr(caught.value.as_dict())
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("error", [ConnectionFailed("No such socket"), ToolMissing("No psycopg")])
def test_a_plan_without_a_server(error: HmsError) -> None:
    def unreachable(_database: str) -> t.Any:
        raise error

    manager = ObjectsManager(
        unreachable, maintenance_database="postgres", superuser="postgres", salts=itertools.repeat(SALT).__next__
    )
    result = manager.ensure(WISH, check_mode=True)
    assert result.changed
    assert "new, empty instance" in result.warnings[0]
    with pytest.raises(type(error)):
        manager.ensure(WISH, check_mode=False)


def test_a_user_that_the_host_does_not_have() -> None:
    manager = objects_manager(host="/run", port=5432, os_user="no-such-user", maintenance_database="postgres")
    with pytest.raises(ConnectionFailed, match="no user no-such-user"):
        manager.ensure(WISH, check_mode=False)
