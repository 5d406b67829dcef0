"""Trust between services, as the surface uses it: `Holdfast-Signature: t=SECONDS,v1=HEX`.

What is signed and how stands in `core.signature`, which the HTTP transport shares. Fails with `Unauthorized`.
"""

from holdfast.core.signature import AGE_SECONDS_MAX, HEADER, answer_path, sign, verify

__all__ = ["AGE_SECONDS_MAX", "HEADER", "answer_path", "sign", "verify"]
