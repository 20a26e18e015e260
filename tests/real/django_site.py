# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A small Django application of a hospital, with Debian's Django, for tests. No word of it knows of drills."""

from __future__ import annotations

import os
import pathlib
import subprocess

PYTHON = "/usr/bin/python3"
_MANAGE = """\
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
_SETTINGS = """\
import os
from urllib.parse import unquote, urlsplit
SECRET_KEY = os.environ["APP_SECRET"]
INSTALLED_APPS = ["wards"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
url = urlsplit(os.environ[{variable!r}])
DATABASES = {{"default": {{
    "ENGINE": "django.db.backends.postgresql",
    "NAME": unquote(url.path[1:]),
    "USER": url.username or "",
    "HOST": unquote(url.netloc.rpartition("@")[2].rpartition(":")[0]),
    "PORT": url.port or "",
}}}}
"""
_MODELS = """\
from django.db import models

class Ward(models.Model):
    name = models.CharField(max_length=80)
"""
_FIRST = """\
from django.db import migrations, models

class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [migrations.CreateModel("Ward", [
        ("id", models.BigAutoField(primary_key=True, serialize=False)), ("name", models.CharField(max_length=80))])]
"""
_SECOND = """\
from django.db import migrations, models

class Migration(migrations.Migration):
    dependencies = [("wards", "0001_initial")]
    operations = [migrations.AddField("ward", "floor", models.IntegerField(null=True))]
"""


class Application:
    """Its files, and the command of whoever deploys it."""

    def __init__(self, folder: pathlib.Path, *, variable: str = "DATABASE_URL") -> None:
        self.folder = folder
        self.variable = variable
        self.secrets = folder / "app.env"
        files = {
            "manage.py": _MANAGE,
            "site_settings.py": _SETTINGS.format(variable=variable),
            "wards/__init__.py": "",
            "wards/models.py": _MODELS,
            "wards/migrations/__init__.py": "",
            "wards/migrations/0001_initial.py": _FIRST,
            "app.env": "# of the application\nexport APP_SECRET='not-to-be-seen'\n",
        }
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.secrets.chmod(0o600)

    def evolve(self) -> None:
        """A newer version, with a migration that the databases lack."""
        (self.folder / "wards" / "migrations" / "0002_ward_floor.py").write_text(_SECOND)

    def migrate(self, sockets: pathlib.Path, port: int, database: str) -> None:
        """Deploy it to a server."""
        place = str(sockets).replace("/", "%2F")
        environment = {
            **os.environ,
            "APP_SECRET": "another",
            self.variable: f"postgresql://postgres@{place}:{port}/{database}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        argv = ["runuser", "-u", "postgres", "--", PYTHON, "manage.py", "migrate", "--no-input"]
        done = subprocess.run(
            argv, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
