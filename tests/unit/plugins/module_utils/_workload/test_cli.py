# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line."""

from __future__ import annotations

import argparse
import json
import pathlib

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._workload import cli, ledger


def test_a_connection_string_becomes_parameters() -> None:
    found = cli.endpoint(
        "host=127.0.0.1 port=6501 user=hospital_app passfile='/a b/pass' sslmode=verify-ca sslrootcert=/ca"
    )
    assert (found.host, found.port, found.user, found.passfile) == ("127.0.0.1", 6501, "hospital_app", "/a b/pass")
    assert found.libpq()["sslrootcert"] == "/ca"
    assert "options" not in found.libpq()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("host=x password=secret", "passfile"),
        ("host=x options='-c work_mem=1'", "options can't be given"),
        ("host", "not a connection string"),
    ],
)
def test_what_can_t_be_given_is_refused(text: str, message: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=message) as refusal:
        cli.endpoint(text)
    assert "secret" not in str(refusal.value)


def test_a_mark_is_noted(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["mark", "half time", "--directory", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "half time"
    assert [mark.name for mark in ledger.read_marks(str(tmp_path))] == ["half time"]


def test_an_error_is_said_and_given_as_data(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["kill", "--data-directory", str(tmp_path)]) == cli.FAILED
    output = capsys.readouterr()
    assert output.err.startswith("No server runs on")
    assert "Nothing was killed." in output.err
    assert json.loads(output.out)["error"]["reason"] == "not_running"


def test_a_standby_is_left_alone_when_told_so(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "standby.signal").write_text("")
    assert cli.main(["kill", "--only-primary", "--data-directory", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["killed"] is False


def test_stopping_what_doesn_t_run_is_no_error(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["stop", "--directory", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out) == {"stopped": False}
