# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that say who can read a backup."""

from __future__ import annotations


class ModuleDocFragment:
    """`hms.postgres.backup_encryption`"""

    DOCUMENTATION = r"""
options:
  encryption:
    description:
      - Who can read the backup. Without this option it is not encrypted.
      - With O(encryption.recipients) it is encrypted to public keys, and the host that makes it cannot read it
        afterwards. With a passphrase, whoever has that can read it.
    type: dict
    suboptions:
      recipients:
        description: Fingerprints or mail addresses of public keys; several can each read it on their own.
        type: list
        elements: str
        default: []
      key_files:
        description: Files on the managed host with those public keys. They go into a keyring of the run's own.
        type: list
        elements: path
        default: []
      passphrase:
        description: The passphrase itself, best from a vault.
        type: str
      passphrase_file:
        description: A file on the managed host that holds the passphrase, and that others can't read.
        type: path
"""
