# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings of stores: what is taken, and that what is wrong is named and never shown when it may be secret."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._store.folder import FolderStore
from ansible_collections.hms.postgres.plugins.module_utils._store.model import FolderSpec, S3Spec
from ansible_collections.hms.postgres.plugins.module_utils._store.open_store import (
    open_store,
    store_spec_from,
    store_specs_from,
)
from ansible_collections.hms.postgres.plugins.module_utils._store.s3 import S3Store

BUCKET = {"bucket": "backups"}


def test_one_or_several_stores() -> None:
    folder, bucket = FolderSpec("/srv/backups"), S3Spec("backups")
    assert store_spec_from({"folder": "/srv/backups"}) == folder
    assert store_spec_from({"folder": {"path": "/srv/backups"}, "s3": None}) == folder
    assert store_specs_from({"folder": "/srv/backups", "s3": BUCKET}) == (folder, bucket)
    assert store_specs_from([{"s3": BUCKET}, {"folder": "/srv/backups"}]) == (bucket, folder)
    with pytest.raises(HmsError, match="One store was expected here, not 2"):
        store_spec_from({"folder": "/srv/backups", "s3": BUCKET})


def test_arguments_that_were_not_given_are_defaults() -> None:
    given = {**BUCKET, "prefix": "/site/one/", "region": None, "attempts": "3", "read_timeout": 5, "kms_key_id": "k"}
    spec = store_spec_from({"s3": given})
    assert spec == S3Spec("backups", prefix="site/one", attempts=3, read_timeout=5.0, kms_key_id="k", sse="aws:kms")


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ({}, "No store is named"),
        ([], "No store is named"),
        ("/srv", "has to be a mapping"),
        ({"ftp": "x"}, "a folder or s3, not ftp"),
        ({"folder": "srv"}, "absolute path"),
        ({"folder": "//"}, "not the root"),
        ({"folder": {"path": "/a", "mode": 1}}, "one setting, path, not mode, path"),
        ({"s3": {}}, "name of a bucket"),
        ({"s3": {"bucket": "a/b"}}, "name of a bucket"),
        ({"s3": {**BUCKET, "acl": "x"}}, "no setting acl"),
        ({"s3": {**BUCKET, "sse": "rot13"}}, "sse of an S3 store has to be one of AES256, aws:kms"),
        ({"s3": {**BUCKET, "sse": "AES256", "kms_key_id": "k"}}, "needs sse: aws:kms"),
        ({"s3": {**BUCKET, "attempts": 0}}, "a number above 0"),
        ({"s3": {**BUCKET, "attempts": True}}, "a number above 0"),
        ({"s3": {**BUCKET, "read_timeout": "soon"}}, "a number above 0"),
        ({"s3": {**BUCKET, "prefix": "a/../b"}}, "empty part"),
        ({"s3": {**BUCKET, "region": 7}}, "region of a store has to be a text"),
        ({"s3": {**BUCKET, "access_key_id": "a"}}, "go together"),
        ({"s3": {**BUCKET, "session_token": "a"}}, "needs access_key_id"),
        ({"s3": {**BUCKET, "endpoint_url": "ftp://host"}}, "https://host:port"),
        ([{"folder": "/a"}, {"folder": "/a"}], "named twice"),
    ],
)
def test_what_is_wrong_is_named(store: t.Any, said: str) -> None:
    with pytest.raises(HmsError, match=said) as caught:
        store_specs_from(store)
    assert caught.value.reason == "bad_config"


def test_secrets_are_not_shown() -> None:
    with pytest.raises(HmsError) as caught:
        store_spec_from({"s3": {**BUCKET, "endpoint_url": "https://me:hush@host"}})
    assert "hush" not in caught.value.full_text()
    spec = store_spec_from({"s3": {**BUCKET, "access_key_id": "AKIA", "secret_access_key": "hush"}})
    assert "hush" not in repr(spec)
    assert "AKIA" not in repr(spec)


def test_opening_looks_at_nothing() -> None:
    folder, bucket = open_store(FolderSpec("/nowhere/at/all/")), open_store(S3Spec("b", prefix="p/q"))
    assert (type(folder), folder.name) == (FolderStore, "/nowhere/at/all")
    assert (type(bucket), bucket.name) == (S3Store, "s3://b/p/q")
