# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stores, keys and connections, as Ansible describes a module's arguments. PRIVATE."""

from __future__ import annotations

import typing as t

Spec = dict[str, t.Any]

S3: Spec = {
    "bucket": {"type": "str", "required": True},
    "prefix": {"type": "str", "default": ""},
    "endpoint_url": {"type": "str"},
    "region": {"type": "str"},
    "ca_bundle": {"type": "path"},
    "access_key_id": {"type": "str", "no_log": False},
    "secret_access_key": {"type": "str", "no_log": True},
    "session_token": {"type": "str", "no_log": True},
    "profile": {"type": "str"},
    "addressing_style": {"type": "str", "choices": ["auto", "path", "virtual"], "default": "auto"},
    "storage_class": {"type": "str"},
    "sse": {"type": "str", "choices": ["AES256", "aws:kms"]},
    "kms_key_id": {"type": "str", "no_log": False},
    "object_lock": {"type": "str", "choices": ["GOVERNANCE", "COMPLIANCE"]},
    "checksum": {"type": "str", "choices": ["auto", "sha256", "md5"], "default": "auto"},
    "connect_timeout": {"type": "float", "default": 10.0},
    "read_timeout": {"type": "float", "default": 60.0},
    "attempts": {"type": "int", "default": 11},
}
STORE: Spec = {
    "store": {"type": "dict", "options": {"folder": {"type": "path"}, "s3": {"type": "dict", "options": S3}}},
}
NAMES: Spec = {"type": "list", "elements": "str", "default": []}
PATHS: Spec = {"type": "list", "elements": "path", "default": []}
ENCRYPTION: Spec = {
    "encryption": {
        "type": "dict",
        "options": {
            "recipients": NAMES,
            "key_files": {**PATHS, "no_log": False},
            "passphrase": {"type": "str", "no_log": True},
            "passphrase_file": {"type": "path", "no_log": False},
        },
    },
}
CONNECTION: Spec = {
    "login_host": {"type": "str", "default": "/var/run/postgresql"},
    "login_port": {"type": "int", "default": 5432},
    "login_user": {"type": "str", "default": "postgres"},
    "login_password": {"type": "str", "no_log": True},
    "login_passfile": {"type": "path"},
    "ssl_mode": {
        "type": "str",
        "choices": ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"],
    },
    "ssl_root_cert": {"type": "path"},
    "os_user": {"type": "str", "default": "postgres"},
}
PGBACKREST: Spec = {
    "pgbackrest": {
        "type": "dict",
        "options": {
            "config": {"type": "path"},
            "stanza": {"type": "str"},
            "os_user": {"type": "str"},
            "repo": {"type": "int"},
        },
    },
}
