# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import datetime
import pathlib
import subprocess

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import Refused
from ansible_collections.hms.postgres.plugins.module_utils._provision.certificates import (
    CertificateFacts,
    CertificateWish,
    alternative_names,
    certificate_manager,
    plan_certificate,
    shortest,
)
from ansible_collections.hms.postgres.plugins.module_utils._tools.openssl import CertificateInfo

NOW = datetime.datetime(2026, 11, 22, tzinfo=datetime.timezone.utc)
WISH = CertificateWish("/secrets", "db1", ("db1", "10.0.0.1", "::1"))
AUTHORITY = CertificateInfo(NOW + datetime.timedelta(days=3650), frozenset(), "authority's key")
CERTIFICATE = CertificateInfo(
    NOW + datetime.timedelta(days=800), frozenset({"db1", "10.0.0.1", "0:0:0:0:0:0:0:1"}), "k"
)
GOOD = CertificateFacts(AUTHORITY, True, True, CERTIFICATE, True)


def planned(facts: CertificateFacts, wish: CertificateWish = WISH) -> list[str]:
    return [action.id for action in plan_certificate(wish, facts, now=NOW)[0]]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param(CertificateFacts(), ["make_authority", "issue"], id="nothing there"),
        pytest.param(
            CertificateFacts(authority_key=True), ["make_authority", "issue"], id="killed between the authority's files"
        ),
        pytest.param(dataclasses.replace(GOOD, certificate=None), ["issue"], id="a new host"),
        pytest.param(dataclasses.replace(GOOD, fits=False), ["issue"], id="another authority, or another key"),
        pytest.param(GOOD, [], id="in order"),
        pytest.param(
            dataclasses.replace(GOOD, certificate=CERTIFICATE._replace(not_after=NOW + datetime.timedelta(days=29))),
            ["issue"],
            id="about to expire",
        ),
        pytest.param(
            dataclasses.replace(GOOD, certificate=CERTIFICATE._replace(names=frozenset({"db1"}))),
            ["issue"],
            id="other names",
        ),
    ],
)
def test_what_is_planned(facts: CertificateFacts, expected: list[str]) -> None:
    assert planned(facts) == expected


@pytest.mark.parametrize(
    "facts",
    [dataclasses.replace(GOOD, authority_key=False), dataclasses.replace(GOOD, authority_fits=False)],
)
def test_an_authority_without_its_key_is_not_replaced_by_itself(facts: CertificateFacts) -> None:
    with pytest.raises(Refused) as caught:
        planned(facts)
    assert caught.value.reason == "authority_broken"


@pytest.mark.parametrize(("name", "names"), [("ca", ("db1",)), ("../x", ("db1",)), ("db1", ()), ("db1", ("a,DNS:b",))])
def test_names_that_are_refused(name: str, names: tuple[str, ...]) -> None:
    with pytest.raises(Refused):
        planned(GOOD, CertificateWish("/secrets", name, names))


def test_an_authority_near_its_end_is_said() -> None:
    facts = dataclasses.replace(GOOD, authority=AUTHORITY._replace(not_after=NOW + datetime.timedelta(days=100)))
    actions, warnings = plan_certificate(WISH, facts, now=NOW)
    assert actions == []
    assert "expires on 2027-03-02" in warnings[0]


def test_names_in_a_certificate() -> None:
    assert alternative_names(("db1", "10.0.0.1", "::1", "db1")) == "DNS:db1,IP:10.0.0.1,IP:::1"
    assert [shortest(name) for name in ("DB1", "10.0.0.1", "2001:db8::1")] == [
        "db1",
        "10.0.0.1",
        "2001:db8:0:0:0:0:0:1",
    ]


def openssl(*argv: str) -> str:
    return subprocess.run(["openssl", *argv], check=True, capture_output=True, text=True).stdout


def test_with_openssl_itself(tmp_path: pathlib.Path) -> None:
    """openssl is the oracle: the chain, the names, who may read the keys."""
    wish = dataclasses.replace(WISH, directory=str(tmp_path / "secrets"))
    manager = certificate_manager()
    assert manager.ensure(wish, check_mode=True).changed
    assert not (tmp_path / "secrets").exists()
    assert manager.ensure(wish, check_mode=False).changed
    assert not manager.ensure(wish, check_mode=False).changed
    assert "OK" in openssl("verify", "-purpose", "sslserver", "-CAfile", wish.authority, wish.certificate)
    assert "OK" in openssl("verify", "-verify_ip", "10.0.0.1", "-CAfile", wish.authority, wish.certificate)
    assert oct((tmp_path / "secrets").stat().st_mode)[-3:] == "700"
    assert oct(pathlib.Path(wish.key).stat().st_mode)[-3:] == "600"
    assert oct(pathlib.Path(wish.authority_key).stat().st_mode)[-3:] == "600"
    before = pathlib.Path(wish.certificate).read_bytes()
    renamed = dataclasses.replace(wish, names=("db1", "db1.lan"))
    assert manager.ensure(renamed, check_mode=False).changed
    assert pathlib.Path(wish.certificate).read_bytes() != before
    pathlib.Path(wish.key).write_text("garbage")
    assert [action["why"] for action in manager.ensure(renamed, check_mode=False).values["actions"]] == [
        "key, certificate and authority do not belong together"
    ]
