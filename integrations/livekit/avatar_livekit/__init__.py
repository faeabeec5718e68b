"""A face for LiveKit Agents, from the talking-avatar service on NVIDIA Triton."""

from ._generator import AvatarVideoGenerator

__all__ = ["AvatarVideoGenerator"]

__version__ = "0.1.0"
