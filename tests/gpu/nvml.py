"""NVML, the driver's management library, asked without nvidia-smi.

Source of the calls: NVIDIA, NVML API Reference Guide, "Initialization and Cleanup" and "Device Queries".
"""

from __future__ import annotations

import ctypes

LIBRARY = "libnvidia-ml.so.1"
_TEXT = 96  # NVML_DEVICE_UUID_V2_BUFFER_SIZE, the longest


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_uint64), ("free", ctypes.c_uint64), ("used", ctypes.c_uint64))


class _Nvml:
    def __init__(self) -> None:
        self._library = ctypes.CDLL(LIBRARY)
        self._library.nvmlErrorString.restype = ctypes.c_char_p

    def call(self, name: str, *args: object) -> None:
        code = getattr(self._library, name)(*args)
        if code != 0:
            raise OSError(f"{name}: {self._library.nvmlErrorString(code).decode()}")

    def text(self, name: str, *args: object) -> str:
        buffer = ctypes.create_string_buffer(_TEXT)
        self.call(name, *args, buffer, ctypes.c_uint(_TEXT))
        return buffer.value.decode()


def discover() -> list[str]:
    """The driver and each GPU, one a line.

    Raises:
        OSError: the library is not there, or a call of it failed.
    """
    nvml = _Nvml()
    nvml.call("nvmlInit_v2")
    try:
        count = ctypes.c_uint()
        nvml.call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        lines = [f"driver {nvml.text('nvmlSystemGetDriverVersion')}, {count.value} GPUs"]
        return lines + [_gpu(nvml, index) for index in range(count.value)]
    finally:
        nvml.call("nvmlShutdown")


def _gpu(nvml: _Nvml, index: int) -> str:
    device, memory = ctypes.c_void_p(), _Memory()
    nvml.call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(device))
    nvml.call("nvmlDeviceGetMemoryInfo", device, ctypes.byref(memory))
    name, uuid = nvml.text("nvmlDeviceGetName", device), nvml.text("nvmlDeviceGetUUID", device)
    mib = 2**20
    return f"GPU {index}: {name}, {uuid}, {memory.total // mib} MiB memory, {memory.used // mib} MiB used"
