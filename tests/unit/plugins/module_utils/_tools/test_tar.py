# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.hms.postgres.plugins.module_utils._tools.tar import Tar


def test_tar_is_called_like_this() -> None:
    """What it writes says nothing of this host's users, and what it reads takes none over."""
    create = Tar(os_user="postgres").create_stage("/s/-x", "data")
    assert create.argv[1:4] == ("--create", "--file=-", "--format=gnu")
    assert create.argv[-3:] == ("--directory=/s/-x", "--", "data")
    assert {"--owner=0", "--group=0", "--numeric-owner"} <= set(create.argv)
    extract = Tar(os_user="postgres").extract_stage("/s")
    assert extract.argv[1:3] == ("--extract", "--file=-")
    assert {"--no-same-owner", "--no-same-permissions", "--directory=/s"} <= set(extract.argv)
    assert create.os_user == extract.os_user == "postgres"
