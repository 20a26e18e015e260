#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_certificate
short_description: Keeps a small certificate authority and a host's certificate
version_added: 0.1.0
description:
  - Makes a certificate authority in a folder, once, and issues a certificate for a host from it.
  - Meant for the controller (C(delegate_to=localhost)) and for demos and labs, which have no authority of their own.
    In production, use certificates of the hospital's authority.
  - A certificate is issued again when it is about to expire, when its names change, when its key doesn't fit,
    and when the authority is another one.
  - The authority's key never leaves the folder, which only its owner can enter.
options:
  directory:
    description: The folder, made with mode V(0700).
    type: path
    required: true
  name:
    description: The name of the certificate's files and its subject, the host's name for instance.
    type: str
    required: true
  names:
    description: The DNS names and addresses that it is for.
    type: list
    elements: str
    required: true
  days:
    description: For how many days a certificate is issued.
    type: int
    default: 825
  renew_days:
    description: How many days before its end it is issued again.
    type: int
    default: 30
  authority_days:
    description: For how many days the authority is made.
    type: int
    default: 3650
  authority_name:
    description: What the authority is called in its certificate.
    type: str
    default: hms.postgres
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
  platform:
    description: Target OS/families that can be operated against.
    platforms: posix
    support: full
requirements:
  - openssl 3.0 or later
author:
  - the hms.postgres authors (@hms-postgres)
"""

EXAMPLES = r"""
- name: A certificate for this host, made on the controller
  hms.postgres.pg_certificate:
    directory: "{{ lookup('ansible.builtin.env', 'HOME') }}/.local/state/hms-postgres/secrets/hospital"
    name: "{{ inventory_hostname }}"
    names: ["{{ inventory_hostname }}", "{{ ansible_host }}"]
  delegate_to: localhost
  become: false
"""

RETURN = r"""
ca_file:
  description: The authority's certificate.
  returned: success
  type: str
  sample: /home/ops/.local/state/hms-postgres/secrets/hospital/ca.crt
certificate_file:
  description: The host's certificate. It isn't there yet in check mode, when it is still to be issued.
  returned: success
  type: str
  sample: /home/ops/.local/state/hms-postgres/secrets/hospital/db1.crt
key_file:
  description: The host's key. It isn't there yet in check mode, when it is still to be made.
  returned: success
  type: str
  sample: /home/ops/.local/state/hms-postgres/secrets/hospital/db1.key
actions:
  description: What was done, or would be done in check mode, and why.
  returned: success
  type: list
  elements: dict
  sample:
    - id: issue
      what: issue /home/ops/.local/state/hms-postgres/secrets/hospital/db1.crt
      why: there is none
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hms.postgres.plugins.module_utils import _module
from ansible_collections.hms.postgres.plugins.module_utils._provision.certificates import (
    CertificateWish,
    certificate_manager,
)


def main() -> None:
    """Read the arguments, do the work, report."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "names": {"type": "list", "elements": "str", "required": True},
            "days": {"type": "int", "default": 825},
            "renew_days": {"type": "int", "default": 30},
            "authority_days": {"type": "int", "default": 3650},
            "authority_name": {"type": "str", "default": "hms.postgres"},
        },
        supports_check_mode=True,
    )
    wish = CertificateWish(**{**module.params, "names": tuple(module.params["names"])})
    _module.run(module, lambda: certificate_manager().ensure(wish, check_mode=module.check_mode))


if __name__ == "__main__":
    main()
