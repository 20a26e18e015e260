# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How an artifact is stored: compressed and encrypted. PRIVATE to the collection."""

from __future__ import annotations

import dataclasses
import typing as t


@dataclasses.dataclass(frozen=True)
class Compression:
    """How the stream is made smaller. None is the method's own default: zstd 3, gzip 1, lz4 1; all cores up to 4."""

    method: t.Literal["zstd", "gzip", "lz4", "none"] = "zstd"
    level: int | None = None
    threads: int | None = None


@dataclasses.dataclass(frozen=True)
class Encryption:
    """Who can read it. With `recipients` the host that made it cannot; with a passphrase whoever has that.

    Attributes:
        recipients: fingerprints or mail addresses of public keys.
        key_files: armoured public keys, imported into a keyring of the run's own.
        passphrase: given directly (``BACKUP_ENCRYPTION_PASSPHRASE`` or a vault).
        passphrase_file: a file that holds it, not readable by others.
    """

    recipients: tuple[str, ...] = ()
    key_files: tuple[str, ...] = ()
    passphrase: str | None = dataclasses.field(default=None, repr=False)
    passphrase_file: str | None = None

    @property
    def method(self) -> t.Literal["none", "public_key", "passphrase"]:
        """What is done."""
        if self.recipients:
            return "public_key"
        return "passphrase" if self.passphrase or self.passphrase_file else "none"
