# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Filters for templates of the role postgresql."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._provision import hba, tuning


def pg_tuned(overrides: t.Mapping[str, tuning.Setting], **sizes: t.Any) -> dict[str, tuning.Setting]:
    """Settings for a host's memory and cores, with overrides."""
    try:
        return tuning.tune(
            memory_mb=int(sizes["memory_mb"]),
            cores=int(sizes["cores"]),
            max_connections=int(sizes["max_connections"]),
            overrides=overrides,
        )
    except HmsError as error:
        raise AnsibleFilterError(error.full_text()) from error
    except ValueError as error:
        raise AnsibleFilterError(f"pg_tuned takes whole numbers: {error}") from error


def pg_setting(value: tuning.Setting) -> str:
    """A value as postgresql.conf takes it."""
    try:
        return tuning.render_value(value)
    except HmsError as error:
        raise AnsibleFilterError(error.full_text()) from error


def pg_hba(rules: t.Sequence[hba.Rule]) -> list[str]:
    """The lines of pg_hba.conf."""
    try:
        return hba.render_rules(rules)
    except HmsError as error:
        raise AnsibleFilterError(error.full_text()) from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """The filters by name."""
        return {"pg_hba": pg_hba, "pg_setting": pg_setting, "pg_tuned": pg_tuned}
