"""A face for Pipecat, from the talking-avatar service on NVIDIA Triton."""

from ._service import AvatarVideoService, AvatarVideoSettings

__all__ = ["AvatarVideoService", "AvatarVideoSettings"]

__version__ = "0.1.0"
