# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact.model import Compression, Encryption
from ansible_collections.hms.postgres.plugins.module_utils._backup.arguments import BACKUP
from ansible_collections.hms.postgres.plugins.module_utils._backup.model import Retention
from ansible_collections.hms.postgres.plugins.module_utils._backup.wishes import wish_from
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._store.model import FolderSpec, S3Spec

LEAST: dict[str, t.Any] = {
    "cluster": "hospital",
    "environment": "production",
    "database": "h",
    "store": {"folder": "/srv"},
}


def defaults(spec: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """What Ansible hands over when nothing is given."""
    return {name: option.get("default") for name, option in spec.items()}


def test_the_modules_defaults_are_the_wishs() -> None:
    assert wish_from({**defaults(BACKUP), **LEAST}) == wish_from(LEAST)


def test_the_least() -> None:
    made = wish_from(LEAST)
    assert (made.cluster, made.database, made.stores) == ("hospital", "h", (FolderSpec("/srv"),))
    assert (made.connection.host, made.connection.port, made.os_user) == ("/var/run/postgresql", 5432, "postgres")
    assert made.state_dir == "/var/lib/hms-postgres/hospital"
    assert (made.encryption.method, made.compression, made.retention) == ("none", Compression(), {})


def test_everything() -> None:
    made = wish_from(
        {
            **LEAST,
            "store": {"folder": "/srv", "s3": {"bucket": "bucket", "region": None, "prefix": "p"}},
            "type": "schema_only",
            "os_user": "",
            "compression": "gzip",
            "compression_level": 6,
            "encryption": {"recipients": ["a@b"], "key_files": ["/k"], "passphrase": None},
            "retention": {"days": 30.0, "keep_last": 7},
            "login_host": "db1",
            "login_password": "secret",
            "ssl_mode": "verify-full",
            "verify": "deep",
            "format": "directory",
            "jobs": 3,
            "staging_dir": "/run/staging",
        }
    )
    assert (made.format, made.jobs, made.staging_dir) == ("directory", 3, "/run/staging")
    assert made.stores == (FolderSpec("/srv"), S3Spec("bucket", prefix="p"))
    assert made.os_user is None
    assert made.compression == Compression("gzip", 6)
    assert made.encryption == Encryption(("a@b",), ("/k",))
    assert made.retention == {"schema_only": Retention(days=30.0, keep_last=7)}
    assert (made.connection.host, made.connection.sslmode) == ("db1", "verify-full")
    assert "secret" not in repr(made)


def test_retention_by_type() -> None:
    made = wish_from({**LEAST, "retention": {"full": {"days": 30}, "incremental": {"days": 7}}})
    assert made.retention == {"full": Retention(days=30), "incremental": Retention(days=7)}


def test_pgbackrest_has_its_own_repository() -> None:
    made = wish_from({**LEAST, "store": None, "engine": "pgbackrest", "pgbackrest": {"stanza": "s", "repo": None}})
    assert (made.stores, made.pgbackrest) == ((), {"stanza": "s"})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"store": None}, "needs store"),
        ({"store": {}}, "needs store"),
        ({"store": {"folder": None}}, "neither"),
        ({"store": {"ftp": "x"}}, "no option ftp"),
        ({"store": "/srv"}, "must be a mapping"),
        ({"cluster": ""}, "needs cluster"),
        ({"databse": "x"}, "no option databse"),
        ({"engine": "tar"}, "no engine 'tar'"),
        ({"type": "incremental"}, "makes no 'incremental'"),
        ({"engine": "pgbackrest", "type": "schema_only"}, "makes no 'schema_only'"),
        ({"encryption": {"recipients": ["a@b"], "passphrase": "p"}}, "only one of them"),
        ({"encryption": {"key_files": ["/k"]}}, "no recipients"),
        ({"encryption": {"recipient": ["a@b"]}}, "no option recipient"),
        ({"encryption": ["a@b"]}, "must be a mapping"),
        ({"retention": {"dayz": 3}}, "no option dayz"),
        ({"jobs": 0}, "from 1 to 64"),
        ({"jobs": "2"}, "from 1 to 64"),
        ({"jobs": True}, "from 1 to 64"),
        ({"staging_dir": "run/staging"}, "absolute path"),
    ],
)
def test_what_cannot_be_a_wish(changes: dict[str, t.Any], words: str) -> None:
    with pytest.raises(HmsError, match=words) as caught:
        wish_from({**LEAST, **changes})
    assert caught.value.reason == "bad_config"
    assert caught.value.state == "Nothing was touched."
