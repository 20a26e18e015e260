# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One bucket through boto3: the client, its retries, its headers, its errors. PRIVATE to the collection.

The only place that imports boto3; it works with 1.26 (Debian 12) and with what is current.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import email.utils
import hashlib
import importlib
import os
import re
import threading
import typing as t

from .._errors import HmsError, ToolMissing
from .model import S3Spec
from .s3_errors import s3_error

CONNECTIONS = 16
"""Connections that are kept open at most: as many as threads may use the bucket at the same time."""
_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}(\d{3})?)?Z")
_HTTP = re.compile(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT")


def load() -> t.Any:
    """The module boto3, or `ToolMissing` that says what needs it."""
    try:
        return importlib.import_module("boto3")
    except ImportError as error:
        raise ToolMissing(
            "Python's boto3 is not installed on this host. It is needed for backups in S3.",
            reason="tool_missing",
            state="Nothing was touched.",
            next_step="Install Debian's package python3-boto3.",
        ) from error


def _quick_session() -> t.Any:
    """A session of botocore's that reads times quickly: a listing has one for each object, a thousand on a page."""
    session = importlib.import_module("botocore.session").get_session()
    usual = importlib.import_module("botocore.utils").parse_timestamp
    # where a later botocore has no such thing, times are just read more slowly
    with contextlib.suppress(Exception):
        factory = session.get_component("response_parser_factory")
        factory.set_parser_defaults(timestamp_parser=lambda value: quick_time(value) or usual(value))
    return session


def quick_time(value: t.Any) -> datetime.datetime | None:
    """A time as S3 writes it in its listings and headers; None for whatever reads otherwise."""
    if not isinstance(value, str):
        return None
    if _ISO.fullmatch(value):
        return datetime.datetime.fromisoformat(value[:-1] + "+00:00")
    if _HTTP.fullmatch(value):
        return email.utils.parsedate_to_datetime(value).replace(tzinfo=datetime.timezone.utc)
    return None


class Stopped(HmsError):
    """A call was given up because what it was for is over."""


class Bucket:
    """Calls on one bucket. Threads may share it."""

    def __init__(self, spec: S3Spec, *, attempts: int | None = None) -> None:
        self.spec = spec
        self.attempts = attempts or spec.attempts
        self.name = "s3://" + "/".join(filter(None, (spec.bucket, spec.prefix)))
        self._local = threading.local()
        self._lock = threading.Lock()
        self._client: t.Any = None

    def absolute(self, key: str) -> str:
        """The key in the bucket."""
        return f"{self.spec.prefix}/{key}" if self.spec.prefix else key

    def relative(self, key: str) -> str:
        """The key in the store."""
        return key[len(self.spec.prefix) + 1 :] if self.spec.prefix else key

    @property
    def client(self) -> t.Any:
        """boto3's client, made when it is needed for the first time."""
        with self._lock:
            if self._client is None:
                # boto3's errors have no common base
                try:
                    self._client = self._connect()
                except HmsError:
                    raise
                except Exception as error:
                    raise s3_error(self.name, "", "use", error) from error
            return self._client

    def _connect(self) -> t.Any:
        boto3 = load()
        spec = self.spec
        if spec.ca_bundle and not os.access(spec.ca_bundle, os.R_OK):
            raise HmsError(
                f"The CA bundle {spec.ca_bundle} of {self.name} cannot be read.",
                reason="bad_config",
                state="Nothing was touched.",
                next_step="Put the CA's certificate there, readable for the account that runs the backup.",
            )
        session = boto3.session.Session(
            botocore_session=_quick_session(),
            aws_access_key_id=spec.access_key_id,
            aws_secret_access_key=spec.secret_access_key,
            aws_session_token=spec.session_token,
            profile_name=spec.profile,
        )
        # a server of one's own has no regions, but a signature names one
        region = spec.region or session.region_name or ("us-east-1" if spec.endpoint_url else None)
        client = session.client(
            "s3",
            region_name=region,
            endpoint_url=spec.endpoint_url,
            verify=spec.ca_bundle,
            config=self._config(),
        )
        client.meta.events.register("before-call.s3", self._add_headers)
        client.meta.events.register_first("needs-retry.s3", self._judge_retry)
        return client

    def _config(self) -> t.Any:
        config = importlib.import_module("botocore.config").Config
        known: dict[str, t.Any] = {
            "signature_version": "s3v4",
            "s3": {"addressing_style": self.spec.addressing_style},
            "retries": {"mode": "standard", "total_max_attempts": self.attempts},
            "connect_timeout": self.spec.connect_timeout,
            "read_timeout": self.spec.read_timeout,
            "tcp_keepalive": True,
            "max_pool_connections": CONNECTIONS,
        }
        try:
            # newer ones add checksums of their own to every request, which many servers don't take
            return config(
                **known, request_checksum_calculation="when_required", response_checksum_validation="when_required"
            )
        except TypeError:
            return config(**known)

    def _add_headers(self, params: dict[str, t.Any], model: t.Any, **_other: t.Any) -> None:
        if getattr(self._local, "if_absent", False) and model.name in ("PutObject", "CompleteMultipartUpload"):
            params["headers"]["If-None-Match"] = "*"
        if model.name == "DeleteObjects" and isinstance(params.get("body"), bytes):
            # the API asks for it, newer boto3 sends a CRC32 in its place, which older servers don't know
            params["headers"]["Content-MD5"] = md5_of(params["body"])

    def _judge_retry(self, caught_exception: BaseException | None = None, **_other: t.Any) -> None:
        stopped = getattr(self._local, "stopped", None)
        if stopped and stopped():
            raise Stopped(f"A request to {self.name} was given up.", reason="stopped")
        # a certificate doesn't get better by trying again
        if caught_exception is not None and "CERTIFICATE_VERIFY_FAILED" in str(caught_exception):
            raise caught_exception

    @contextlib.contextmanager
    def only_if_absent(self) -> t.Iterator[None]:
        """Within: this thread's PUT and complete carry ``If-None-Match: *``."""
        self._local.if_absent = True
        try:
            yield
        finally:
            self._local.if_absent = False

    @contextlib.contextmanager
    def until(self, stopped: t.Callable[[], bool]) -> t.Iterator[None]:
        """Within: this thread's calls are not tried again once `stopped` says so."""
        self._local.stopped = stopped
        try:
            yield
        finally:
            self._local.stopped = None

    def call(self, operation: str, what: str, key: str = "", **parameters: t.Any) -> dict[str, t.Any]:
        """Do one call; `key` is the store's, `what` completes "Cannot …" in the error."""
        if key:
            parameters["Key"] = self.absolute(key)
        request = getattr(self.client, operation)
        try:
            answer: dict[str, t.Any] = request(Bucket=self.spec.bucket, **parameters)
        except HmsError:
            raise
        except Exception as error:
            raise s3_error(self.name, key, what, error) from error
        return answer

    def pages(self, operation: str, what: str, **parameters: t.Any) -> t.Iterator[dict[str, t.Any]]:
        """The pages of a listing, each fetched when it is asked for."""
        paginator = self.client.get_paginator(operation)
        try:
            yield from paginator.paginate(Bucket=self.spec.bucket, **parameters)
        except Exception as error:
            raise s3_error(self.name, "", what, error) from error


def md5_of(data: t.Any) -> str:
    """An MD5 as the header wants it: against accidents on the way, not against attackers."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def sha256_of(data: t.Any) -> str:
    """A SHA-256 as the header wants it."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
