# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Build the collection from the checkout and let galaxy-importer judge the artifact.

Three things fail the gate: the build itself, a file in the artifact that does not belong
there or one that is missing (compared with what git knows), and anything that
galaxy-importer has to say above INFO, for it exits with 0 on what Galaxy would only warn of.

Usage: galaxy_build.py CHECKOUT STAGED_COPY OUTPUT
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

# Written by the build itself, or read by it and left out.
MADE = {"MANIFEST.json", "FILES.json"}
LEFT_OUT = {"galaxy.yml", ".gitignore"}
IMPORTER_CONFIG = """[galaxy-importer]
check_changelog = True
check_required_tags = True
run_ansible_doc = True
# make lint runs ansible-lint and ansible-test themselves, with stricter settings
run_ansible_lint = False
run_ansible_test = False
run_flake8 = False
"""


def build(checkout: pathlib.Path, output: pathlib.Path) -> pathlib.Path:
    """The artifact, built from the checkout as it lies there."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    program = [os.path.join(os.path.dirname(sys.executable), "ansible-galaxy"), "collection", "build"]
    subprocess.run([*program, "--output-path", str(output), str(checkout)], check=True, stdout=subprocess.DEVNULL)
    (artifact,) = output.glob("*.tar.gz")
    return artifact


def compare(artifact: pathlib.Path, staged: pathlib.Path) -> list[str]:
    """What the artifact has too much or too little of."""
    with tarfile.open(artifact) as archive:
        packed = {member.name for member in archive.getmembers() if not member.isdir()}
    listed = subprocess.run(
        ["git", "-C", str(staged), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    expected = {name for name in listed.split("\0") if name}
    surplus = sorted(packed - expected - MADE)
    missing = sorted(expected - packed - LEFT_OUT)
    return [f"the artifact holds {name}, which git does not know" for name in surplus] + [
        f"the artifact lacks {name}" for name in missing
    ]


def judge(artifact: pathlib.Path, output: pathlib.Path) -> list[str]:
    """What galaxy-importer does not like."""
    config = output / "galaxy-importer.cfg"
    config.write_text(IMPORTER_CONFIG)
    scripts = os.path.dirname(sys.executable)
    environment = {
        **os.environ,
        "GALAXY_IMPORTER_CONFIG": str(config),
        "PATH": scripts + os.pathsep + os.environ.get("PATH", ""),
    }
    # The collection must be found in the importer's own copy, not in this checkout.
    environment.pop("ANSIBLE_COLLECTIONS_PATH", None)
    done = subprocess.run(
        [sys.executable, "-m", "galaxy_importer.main", artifact.name],
        check=False,
        capture_output=True,
        text=True,
        cwd=output,
        env=environment,
    )
    lines = (done.stdout + done.stderr).splitlines()
    bad = [line for line in lines if line.startswith(("WARNING", "ERROR", "CRITICAL"))]
    if done.returncode:
        return [*(bad or lines[-20:]), f"galaxy-importer ended with {done.returncode}"]
    if "Importer processing completed successfully" not in lines:
        return [*lines[-20:], "galaxy-importer did not say that it imported the collection"]
    return bad


def main(arguments: list[str]) -> int:
    """Run the command line."""
    if len(arguments) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    checkout, staged, output = (pathlib.Path(argument).absolute() for argument in arguments)
    artifact = build(checkout, output)
    problems = compare(artifact, staged) + judge(artifact, output)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(f"{artifact.name}: galaxy-importer accepts it, {artifact.stat().st_size // 1024} KiB")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
