# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a backup is told, as Ansible describes them. PRIVATE."""

from __future__ import annotations

from .._artifact.arguments import CONNECTION, ENCRYPTION, PGBACKREST, STORE, Spec

COUNT: Spec = {"type": "int", "default": 0}
RETENTION: Spec = {
    "retention": {
        "type": "dict",
        "options": {
            "days": {"type": "float"},
            "keep_last": COUNT,
            "daily": COUNT,
            "weekly": COUNT,
            "monthly": COUNT,
            "yearly": COUNT,
        },
    },
}
BACKUP: Spec = {
    "cluster": {"type": "str", "required": True},
    "environment": {"type": "str", "required": True},
    "database": {"type": "str", "required": True},
    "engine": {"type": "str", "choices": ["pg_dump", "pgbackrest"], "default": "pg_dump"},
    "type": {
        "type": "str",
        "choices": ["full", "schema_only", "data_only", "differential", "incremental"],
        "default": "full",
    },
    "format": {"type": "str", "choices": ["custom", "directory", "plain"], "default": "custom"},
    "jobs": {"type": "int"},
    "staging_dir": {"type": "path"},
    "compression": {"type": "str", "choices": ["zstd", "gzip", "lz4", "none"], "default": "zstd"},
    "compression_level": {"type": "int"},
    "compression_threads": {"type": "int"},
    **STORE,
    **ENCRYPTION,
    **CONNECTION,
    **RETENTION,
    "verify": {"type": "str", "choices": ["none", "read", "deep"], "default": "read"},
    "globals": {"type": "bool", "default": True},
    "role_passwords": {"type": "bool", "default": False, "no_log": False},
    "row_counts": {"type": "bool", "default": True},
    "if_busy": {"type": "str", "choices": ["refuse", "wait"], "default": "refuse"},
    "wait_seconds": {"type": "float", "default": 3600.0},
    "lock_timeout": {"type": "float", "default": 30.0},
    "timeout": {"type": "float", "default": 86400.0},
    "state_dir": {"type": "path"},
    **PGBACKREST,
}
