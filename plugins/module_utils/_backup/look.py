# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The look before a dump: database, programs, stores, catalog, keys. Nothing is changed by it. PRIVATE."""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

from .._artifact import catalog
from .._artifact.catalog import Catalog
from .._artifact.clients import DIRECTORIES, find_clients
from .._artifact.keys import Keyring, prepare_keyring
from .._artifact.staging import look_at
from .._clock import Clock
from .._command import CommandRunner
from .._errors import HmsError, Refused
from .._postgres import Session
from .._record import new_id
from .._store.model import ObjectStore
from .._store.open_store import open_store
from . import oversized
from .estimate import newest_alike
from .facts import Connect, free_space, open_source, read_source
from .model import Wish
from .plan import Facts, StoreFacts, later_id
from .record import OPERATION, ServerClock
from .staging_plan import needs_staging


@dataclasses.dataclass(frozen=True)
class Ports:
    """What an operation needs of the world."""

    runner: CommandRunner
    clock: Clock
    connect: Connect
    host: str
    by: str
    directories: tuple[str, ...] = DIRECTORIES
    open_store: t.Callable[[t.Any], ObjectStore] = open_store


@dataclasses.dataclass(frozen=True)
class Look:
    """What was seen, and what was opened on the way.

    Attributes:
        known: the ids of the backups that there are, by store.
        catalogs: all that is known of them.
    """

    identifier: str
    clock: ServerClock
    facts: Facts
    session: Session
    stores: tuple[ObjectStore, ...]
    known: t.Mapping[str, t.Sequence[str]]
    catalogs: dict[str, Catalog]
    keyring: Keyring
    warnings: tuple[str, ...] = ()


def look(wish: Wish, ports: Ports, stack: contextlib.ExitStack, *, ephemeral: bool, write_cache: bool) -> Look:
    """Look at everything; what was opened is closed by `stack`."""
    session = open_source(wish.connection, ports.connect)
    stack.callback(session.close)
    source = read_source(session)
    clock = ServerClock(ports.clock, source.now)
    stores = tuple(ports.open_store(spec) for spec in wish.stores)
    facts, catalogs = [], {}
    for store in stores:
        seen, known = _look_at_store(store, wish, write_cache=write_cache)
        facts.append(seen)
        catalogs[store.name] = known
    keyring, problem = _keyring(wish, ports.runner, stack, ephemeral=ephemeral)
    manifests = [entry.manifest for known in catalogs.values() for entry in known.entries]
    newest = max((manifest.id for manifest in manifests), default="")
    local = wish.connection.host.startswith("/")
    seen_facts = Facts(
        source=source,
        clients=find_clients(source.server.major, ports.runner, ports.directories),
        stores=tuple(facts),
        previous=newest_alike(manifests, wish),
        newest_id=newest,
        server_id=new_id(OPERATION, clock),
        encryption_problem=problem,
        staging=(
            look_at(wish.staging_dir, wish.os_user, source.server.data_directory if local else "")
            if wish.staging_dir and needs_staging(wish)
            else None
        ),
        scratch_free=free_space(source.server.data_directory) if local and source.server.data_directory else None,
    )
    return Look(
        identifier=later_id(seen_facts.server_id, newest),
        clock=clock,
        facts=seen_facts,
        session=session,
        stores=stores,
        known={name: [entry.id for entry in known.entries] for name, known in catalogs.items()},
        catalogs=catalogs,
        keyring=keyring,
        warnings=(
            *keyring.warnings,
            *_catalog_warnings(catalogs),
            *oversized.warnings(session, source.relations, wish.type),
        ),
    )


def _look_at_store(store: ObjectStore, wish: Wish, *, write_cache: bool) -> tuple[StoreFacts, Catalog]:
    try:
        store.check()
        known = catalog.load_store(store, wish.cluster, wish.database, write_cache=write_cache)
        return StoreFacts(store.name, store.free_bytes()), known
    except Refused as refused:
        return StoreFacts(store.name, problem=refused), Catalog()
    except HmsError as error:
        problem = Refused(error.message, reason=error.reason, next_step=error.next_step)
        return StoreFacts(store.name, problem=problem), Catalog()


def _catalog_warnings(catalogs: t.Mapping[str, Catalog]) -> t.Iterator[str]:
    for known in catalogs.values():
        yield from (problem.what for problem in known.problems)


def _keyring(
    wish: Wish, runner: CommandRunner, stack: contextlib.ExitStack, *, ephemeral: bool
) -> tuple[Keyring, Refused | None]:
    """The keyring; one that can't be made is a refusal like others, told together with them."""
    try:
        return stack.enter_context(prepare_keyring(wish.encryption, runner=runner, ephemeral=ephemeral)), None
    except Refused as refused:
        return Keyring("none"), refused
