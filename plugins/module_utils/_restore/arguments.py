# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restore is told, as Ansible describes it. PRIVATE."""

from __future__ import annotations

from .._artifact.arguments import CONNECTION, ENCRYPTION, NAMES, PATHS, STORE, Spec
from .model import FORCEABLE

# what isn't given comes from the host's own file, so nothing has a default here
_UNSET: Spec = {
    name: {key: value for key, value in spec.items() if key != "default"} for name, spec in CONNECTION.items()
}
_FLAG: Spec = {"type": "bool", "default": False}
_SHARED: Spec = {
    "config_directory": {"type": "path"},
    "cluster": {"type": "str"},
    "environment": {"type": "str"},
    "database": {"type": "str", "required": True},
    "confirm": {"type": "str"},
    "state_dir": {"type": "path"},
    **_UNSET,
}
RESTORE: Spec = {
    **_SHARED,
    **STORE,
    **ENCRYPTION,
    "backup": {"type": "str", "default": "latest"},
    "strategy": {"type": "str", "choices": ["swap", "in_place"], "default": "swap"},
    "jobs": {"type": "int"},
    "assertions": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "sql": {"type": "str", "required": True},
            "expect": {"type": "raw", "default": True},
        },
    },
    "mask": PATHS,
    "keep_failed": _FLAG,
    "again": _FLAG,
    "allow_phi": _FLAG,
    "allow_other_system": _FLAG,
    "allow_other_database": _FLAG,
    "allow_plain_sql": _FLAG,
    "backup_before": {"type": "bool", "default": True},
    "sessions": {"type": "str", "choices": ["refuse", "wait", "terminate"], "default": "refuse"},
    "wait_seconds": {"type": "float", "default": 60.0},
    "force": {**NAMES, "choices": list(FORCEABLE)},
    "keep_days": {"type": "float", "default": 7.0},
    "work_dir": {"type": "path"},
    "timeout": {"type": "float", "default": 86400.0},
}
CLEANUP: Spec = {
    **_SHARED,
    "older_than_days": {"type": "float", "default": 7.0},
    "names": NAMES,
    "with_sessions": _FLAG,
}
