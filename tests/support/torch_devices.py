"""The devices on which tests of the `pytorch` backend run: the CPU, and a GPU where PyTorch finds one."""

from __future__ import annotations

import pytest
import torch

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]

every_device = pytest.mark.parametrize("device", DEVICES)
