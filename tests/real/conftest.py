# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures for tests against real servers. A test asks for what it needs; what was made is removed after it.

`pg_factory()` makes a primary, `make_standby(primary)` a standby of it, `pgbouncer_factory({"app": primary})` a
pooler. Those that a whole file shares come from `module_lab`.
"""

from __future__ import annotations

import collections
import typing as t

import pytest

from ansible_collections.hms.postgres.tests.real.lab import Instance, Lab, Pooler, clear_stale, missing
from ansible_collections.hms.postgres.tests.real.s3_server import S3Server


class PgFactory(t.Protocol):
    """Makes a primary; settings go into its configuration."""

    def __call__(self, name: str = "", *, start: bool = True, checksums: bool = True, **settings: str) -> Instance:
        """A new instance."""


class StandbyFactory(t.Protocol):
    """Makes a standby, which follows `upstream` through a slot of its own name."""

    def __call__(self, upstream: Instance, name: str = "", *, start: bool = True, slot: bool = True) -> Instance:
        """A copy of `upstream`."""


class PoolerFactory(t.Protocol):
    """Makes a PgBouncer that trusts everybody."""

    def __call__(self, databases: t.Mapping[str, Instance | str], **settings: str) -> Pooler:
        """A running pooler."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that are given the most time begin first: at the end they would run alone, with nothing beside them."""
    longest: dict[object, float] = collections.defaultdict(float)
    for item in items:
        for marker in item.iter_markers("timeout"):
            longest[item.path] = max(longest[item.path], float(marker.args[0]))
    items.sort(key=lambda item: -longest[item.path])


@pytest.fixture(autouse=True)
def open_to_servers(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The servers' user can pass through to a test's folder; another pytest of this user closes it again."""
    base = tmp_path_factory.getbasetemp()
    for folder in (base, *base.parents):
        if not folder.name.startswith(("pytest-", "popen-")):
            break
        folder.chmod(0o711)


@pytest.fixture(scope="session")
def real_servers() -> None:
    """This machine can run servers, and interrupted runs left nothing."""
    lacking = missing()
    if lacking:
        pytest.skip(lacking)
    clear_stale()


@pytest.fixture
def lab(real_servers: None) -> t.Iterator[Lab]:  # noqa: ARG001  asked for its effect
    """A lab for one test."""
    made = Lab()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def module_lab(real_servers: None) -> t.Iterator[Lab]:  # noqa: ARG001  asked for its effect
    """A lab for all tests of a file."""
    made = Lab()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def pg_factory(lab: Lab) -> PgFactory:
    """Makes primaries."""
    return lab.primary


@pytest.fixture
def make_standby(lab: Lab) -> StandbyFactory:
    """Makes standbys."""
    return lab.standby


@pytest.fixture
def pgbouncer_factory(lab: Lab) -> PoolerFactory:
    """Makes poolers."""
    return lab.pooler


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[S3Server]:
    """A real S3 server with TLS and credentials, for all tests of a file."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server
