# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that say where backups are kept."""

from __future__ import annotations


class ModuleDocFragment:
    """`hms.postgres.backup_store`"""

    DOCUMENTATION = r"""
options:
  store:
    description:
      - Where backups are kept. With both a folder and a bucket, each backup is written to both at the same time.
    type: dict
    suboptions:
      folder:
        description:
          - A folder of the managed host, perhaps a mounted one. It must exist; files in it are made with mode V(0600).
        type: path
      s3:
        description: A bucket, Amazon's or of anything that speaks S3. Needs boto3 (Debian's package python3-boto3).
        type: dict
        suboptions:
          bucket:
            description: The bucket's name. It must exist.
            type: str
            required: true
          prefix:
            description: What every key begins with.
            type: str
            default: ''
          endpoint_url:
            description: The service's address, where it isn't Amazon's.
            type: str
          region:
            description: The bucket's region.
            type: str
          ca_bundle:
            description: A file on the managed host with the authorities that sign the service's certificate.
            type: path
          access_key_id:
            description:
              - The account's key. When none is given, boto3's own chain is asked (profile, instance's role).
            type: str
          secret_access_key:
            description: The secret that belongs to O(store.s3.access_key_id).
            type: str
          session_token:
            description: The token of temporary credentials.
            type: str
          profile:
            description: The profile in the configuration files of the account that runs the module.
            type: str
          addressing_style:
            description: Whether the bucket stands in the host's name or in the path.
            type: str
            choices: [auto, path, virtual]
            default: auto
          storage_class:
            description: The storage class of the backups' data, for instance V(STANDARD_IA).
            type: str
          sse:
            description: The encryption that the service does by itself, besides ours.
            type: str
            choices: [AES256, 'aws:kms']
          kms_key_id:
            description: The key for O(store.s3.sse=aws:kms).
            type: str
          object_lock:
            description:
              - The mode in which objects are locked until retention by days would remove them.
                The bucket must have been made with object lock.
            type: str
            choices: [GOVERNANCE, COMPLIANCE]
          checksum:
            description: The checksum sent with each part. V(md5) is for services that know no others.
            type: str
            choices: [auto, sha256, md5]
            default: auto
          connect_timeout:
            description: Seconds in which a connection must come about.
            type: float
            default: 10.0
          read_timeout:
            description: Seconds in which an answer must come.
            type: float
            default: 60.0
          attempts:
            description: How often a request is made at most, until one succeeds.
            type: int
            default: 11
"""
