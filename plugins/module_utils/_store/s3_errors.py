# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What S3 and the way to it answer, told for the reader on call. PRIVATE to the collection."""

from __future__ import annotations

import re
import typing as t

from .._errors import HmsError
from . import common

MISSING = ("NoSuchKey", "404", "NotFound")
NO_UPLOAD = ("NoSuchUpload",)
TAKEN = ("PreconditionFailed", "412", "ConditionalRequestConflict")
NOT_IMPLEMENTED = ("NotImplemented", "501", "MethodNotAllowed", "405")

_DENIED = {
    "AccessDenied",
    "403",
    "Forbidden",
    "AllAccessDisabled",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "ExpiredToken",
    "TokenRefreshRequired",
    "KMS.DisabledException",
    "KMS.NotFoundException",
}
_FULL = {
    "QuotaExceeded",
    "InsufficientStorage",
    "507",
    "XMinioStorageFull",
    "XMinioBackendDown",
    "ServiceQuotaExceeded",
}

# reason and next step by the code that S3 gives
_BY_CODE: dict[str, tuple[str, str]] = {
    "NoSuchBucket": ("no_store", "Create the bucket, or correct its name, region or endpoint_url."),
    "RequestTimeTooSkewed": ("clock_wrong", "Set this host's clock (timedatectl, chrony); S3 refuses times far off."),
    "AuthorizationHeaderMalformed": ("store_failed", "Correct the region of the store."),
    "PermanentRedirect": ("store_failed", "Correct the region or the endpoint_url of the store."),
    "BadDigest": ("store_failed", "Bytes were changed on their way; look at the network and at this host's memory."),
    "InvalidStorageClass": ("bad_config", "Correct the storage_class of the store."),
    "InvalidRequest": ("store_failed", "The server refuses an option of the store (checksum, sse, object_lock)."),
}
# reason and next step by the name of botocore's exception
_BY_CLASS: dict[str, tuple[str, str]] = {
    "NoCredentialsError": ("store_denied", "Give access_key_id and secret_access_key, a profile, or an instance role."),
    "PartialCredentialsError": ("store_denied", "Give both access_key_id and secret_access_key."),
    "ProfileNotFound": ("bad_config", "Correct the profile of the store, or write it into ~/.aws/config."),
    "SSLError": ("store_unreachable", "Check ca_bundle: it has to hold the CA of the server's certificate."),
    "EndpointConnectionError": ("store_unreachable", "Check endpoint_url, name resolution, firewall and the server."),
    "ConnectTimeoutError": ("store_unreachable", "Check endpoint_url, routes, firewall and the server."),
    "ReadTimeoutError": ("store_unreachable", "The server takes requests and doesn't answer: look at its log."),
    "ConnectionClosedError": ("store_unreachable", "The server or something before it drops connections: see its log."),
    "ProxyConnectionError": ("store_unreachable", "Check the proxy in HTTPS_PROXY."),
}


# botocore names the whole URL; what stands behind the path helps nobody
_QUERY = re.compile(r"\?[^\s\"']*")


def code_of(error: BaseException) -> str:
    """The code in S3's answer, '' where there was no answer."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, t.Mapping) else ""


def _kind(error: BaseException, code: str) -> tuple[str, str]:
    if code in _DENIED:
        return "store_denied", "Check the store's credentials and what the bucket's policy allows them."
    if code in _FULL:
        return "store_full", "Make room there, or let retention remove more; then run it again."
    if code in _BY_CODE:
        return _BY_CODE[code]
    for kind in type(error).__mro__:
        if kind.__name__ in _BY_CLASS:
            return _BY_CLASS[kind.__name__]
    if isinstance(error, OSError):
        return "store_unreachable", "Check the settings of the store (ca_bundle, endpoint_url) and the network."
    return "store_failed", "Look at the server's log; run it again when it is well."


def _cause(error: BaseException, code: str) -> str:
    response = getattr(error, "response", None)
    if not isinstance(response, t.Mapping):
        return _QUERY.sub("", f"{type(error).__name__}: {error}").rstrip(". ")
    answer = response.get("Error", {})
    status = response.get("ResponseMetadata", {})
    retries = status.get("RetryAttempts", 0)
    tried = f", tried {retries + 1} times" if retries else ""
    message = str(answer.get("Message", "")).strip()
    return f"{code or status.get('HTTPStatusCode', '')} {message}".strip() + tried


def s3_error(store: str, key: str, what: str, error: BaseException) -> HmsError:
    """The error for a call that did not succeed."""
    if isinstance(error, HmsError):
        return error
    code = code_of(error)
    if code in TAKEN:
        return common.exists(store, key)
    if code in MISSING and key:
        return common.not_found(store, key)
    reason, next_step = _kind(error, code)
    return HmsError(
        f"Cannot {what} {store}/{key}: {_cause(error, code)}."
        if key
        else f"Cannot {what} {store}: {_cause(error, code)}.",
        reason=reason,
        state=common.state_after(what),
        next_step=next_step,
        details={"store": store, "key": key, "code": code or type(error).__name__},
    )
