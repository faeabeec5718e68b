"""Sign webhooks as Standard Webhooks says: https://github.com/standard-webhooks/standard-webhooks."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from standardwebhooks import Webhook

from avatar.settings import BadSetting

from .settings import ServiceSettings

_PREFIX = "whsec_"
_BYTES = range(24, 65)  # of a secret, as the specification says
_HINT = "make one with: echo whsec_$(openssl rand -base64 32)"


class Signer:
    """Signs with every secret, so that receivers may change from one to the next.

    Args:
        secrets: each as `whsec_` and the base64 of 24 to 64 bytes.

    Raises:
        BadSetting: a secret has another form. The message does not contain it.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._webhooks = [_webhook(secret, number) for number, secret in enumerate(secrets, start=1)]

    @classmethod
    def of(cls, settings: ServiceSettings) -> Signer | None:
        """Return the signer of the settings; None if they have no secret. Raises BadSetting."""
        secrets = [secret.get_secret_value() for secret in settings.webhook_secrets]
        return cls(secrets) if secrets else None

    def headers(self, message: UUID, body: str, at: datetime) -> dict[str, str]:
        """Return the headers of a message.

        Args:
            message: the same for every attempt, so that a receiver recognizes a repetition.
            at: the time of this attempt, in UTC; receivers reject old ones.
        """
        signatures = [each.sign(str(message), at, body) for each in self._webhooks]
        return {
            "Content-Type": "application/json",
            "webhook-id": str(message),
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": " ".join(signatures),
        }


def _webhook(secret: str, number: int) -> Webhook:
    try:
        size = len(base64.b64decode(secret.removeprefix(_PREFIX), validate=True)) if secret.startswith(_PREFIX) else 0
    except binascii.Error:
        size = 0
    if size not in _BYTES:
        raise BadSetting(
            f"AVATAR_WEBHOOK_SECRETS: secret {number} is not {_PREFIX} and the base64 of {_BYTES[0]} to {_BYTES[-1]} "
            f"bytes; {_HINT}"
        )
    return Webhook(secret)
