"""Secrets and configs: names, sizes, drivers, and what an update may touch (BEHAVIOUR 4.7)."""

from __future__ import annotations

import hmac

from swarmd import api
from swarmd.base.errors import InvalidArgument
from swarmd.manager.controlapi.validate_names import check_payload_name

secret_bytes_limit = 500 * 1024
config_bytes_limit = 1000 * 1024


def check_secret_spec(spec: api.SecretSpec) -> None:
    """A secret comes with data, or with the driver that will fetch it."""
    check_payload_name(spec.annotations)
    if spec.HasField("driver"):
        if not spec.driver.name:
            raise InvalidArgument("secret driver must have a name")
        return
    if not 1 <= len(spec.data) < secret_bytes_limit:
        raise InvalidArgument(
            f"secret data must be larger than 0 and less than {secret_bytes_limit} bytes"
        )


def check_config_spec(spec: api.ConfigSpec) -> None:
    """A config comes with data."""
    check_payload_name(spec.annotations)
    if not 1 <= len(spec.data) < config_bytes_limit:
        raise InvalidArgument(
            f"config data must be larger than 0 and less than {config_bytes_limit} bytes"
        )


def check_labels_only(
    stored: api.SecretSpec | api.ConfigSpec, wanted: api.SecretSpec | api.ConfigSpec
) -> None:
    """Only labels may change; sending the same data again, or none, is fine."""
    same_data = not wanted.data or hmac.compare_digest(wanted.data, stored.data)
    if wanted.annotations.name != stored.annotations.name or not same_data:
        raise InvalidArgument("only updates to Labels are allowed")
