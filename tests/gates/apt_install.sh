#!/usr/bin/env bash
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Install the Debian packages named that are not there yet; say nothing when all are.
# As root, or with sudo. On a machine without apt-get it says what is missing and fails.
set -euo pipefail

missing=()
for package in "$@"; do
    state=$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null || true)
    [[ $state == installed ]] || missing+=("$package")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "Not installed: ${missing[*]}. This machine has no apt-get: install them with its own package manager, then run make again." >&2
    exit 1
fi

as_root=()
if [[ $(id -u) -ne 0 ]]; then
    if ! command -v sudo >/dev/null; then
        echo "Not installed: ${missing[*]}. Neither root nor sudo here: ask an administrator to run apt-get install ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi

# A machine that gets its first PostgreSQL from here does not need the cluster that Debian would
# create and start. One that has PostgreSQL already keeps its clusters and its settings as they are.
if [[ " ${missing[*]} " == *" postgresql"* && ! -e /etc/postgresql-common/createcluster.conf ]]; then
    "${as_root[@]}" mkdir -p /etc/postgresql-common/createcluster.d
    # the same file, to the letter, that the role postgresql writes
    printf '%s\n' '# Written by the role hms.postgres.postgresql: instances are created by it, with checksums.' \
        'create_main_cluster = false' |
        "${as_root[@]}" tee /etc/postgresql-common/createcluster.d/50-hms.conf >/dev/null
fi

export DEBIAN_FRONTEND=noninteractive
echo "Installing ${missing[*]}"
# A machine that has just started may be updating itself, and a mirror may not answer at once.
patient=(--quiet=2 --option=DPkg::Lock::Timeout=600 --option=Acquire::Retries=5)
install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install "${patient[@]}" --yes --no-install-recommends "${missing[@]}")
# apt-get does not wait for who else reads the lists of packages
update() {
    for _ in $(seq 20); do
        "${as_root[@]}" apt-get update "${patient[@]}" </dev/null && return
        sleep 10
    done
    return 1
}
# The package lists may be absent on a fresh machine, or too old to find the files.
"${install[@]}" </dev/null >/dev/null 2>&1 || { update && "${install[@]}" </dev/null >/dev/null; }
