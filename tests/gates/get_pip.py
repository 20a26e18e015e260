# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stand in for the get-pip script that ansible-test downloads for its virtual environments.

Python carries pip with itself, so nothing has to be fetched from a server that a closed
network does not reach (https://github.com/ansible/ansible/issues/77304). ansible-test runs
the file that it finds in its cache; `make` puts this one there, in a cache of its own.
"""

from __future__ import annotations

import subprocess
import sys


def main(arguments: list[str]) -> None:
    """Install pip from Python's own wheel, then the packages asked for, as get-pip does."""
    ours = ("--no-setuptools", "--no-wheel")
    subprocess.run([sys.executable, "-m", "ensurepip", "--default-pip"], check=True, stdout=subprocess.DEVNULL)
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *(word for word in arguments if word not in ours)], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
