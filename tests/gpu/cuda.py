"""A vector addition on each GPU by CUDA's driver API, which needs the driver alone: no toolkit, no compiler.

Source of the calls: NVIDIA, CUDA Driver API; of the program, which the driver compiles: NVIDIA, PTX ISA.
"""

from __future__ import annotations

import ctypes

LIBRARY = "libcuda.so.1"
LENGTH = 1 << 20
_BLOCK = 256
PTX = b"""
.version 6.0
.target sm_50
.address_size 64
.visible .entry add(.param .u64 a, .param .u64 b, .param .u64 c, .param .u32 n)
{
    .reg .pred %outside;
    .reg .f32 %x, %y;
    .reg .b32 %block, %size, %thread, %i, %n;
    .reg .b64 %offset, %a, %b, %c;
    ld.param.u64 %a, [a];
    ld.param.u64 %b, [b];
    ld.param.u64 %c, [c];
    ld.param.u32 %n, [n];
    mov.u32 %block, %ctaid.x;
    mov.u32 %size, %ntid.x;
    mov.u32 %thread, %tid.x;
    mad.lo.u32 %i, %block, %size, %thread;
    setp.ge.u32 %outside, %i, %n;
    @%outside ret;
    cvta.to.global.u64 %a, %a;
    cvta.to.global.u64 %b, %b;
    cvta.to.global.u64 %c, %c;
    mul.wide.u32 %offset, %i, 4;
    add.u64 %a, %a, %offset;
    add.u64 %b, %b, %offset;
    add.u64 %c, %c, %offset;
    ld.global.f32 %x, [%a];
    ld.global.f32 %y, [%b];
    add.f32 %x, %x, %y;
    st.global.f32 [%c], %x;
    ret;
}
\0"""


class _Cuda:
    def __init__(self) -> None:
        self._library = ctypes.CDLL(LIBRARY)

    def call(self, name: str, *args: object) -> None:
        code = getattr(self._library, name)(*args)
        if code != 0:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(code, ctypes.byref(text))
            raise OSError(f"{name}: {(text.value or b'error').decode()} ({code})")


def add() -> list[str]:
    """Adds two vectors on each GPU and compares the sum with the processor's; one line a GPU.

    Raises:
        OSError: the library is not there, a call of it failed, or the sum is wrong.
    """
    cuda = _Cuda()
    cuda.call("cuInit", ctypes.c_uint(0))
    version, count = ctypes.c_int(), ctypes.c_int()
    cuda.call("cuDriverGetVersion", ctypes.byref(version))
    cuda.call("cuDeviceGetCount", ctypes.byref(count))
    lines = [f"CUDA {version.value // 1000}.{version.value % 1000 // 10} by the driver, {count.value} GPUs"]
    return lines + [_on(cuda, index) for index in range(count.value)]


def _on(cuda: _Cuda, index: int) -> str:
    device, context, module, function = (
        ctypes.c_int(),
        ctypes.c_void_p(),
        ctypes.c_void_p(),
        ctypes.c_void_p(),
    )
    name = ctypes.create_string_buffer(100)
    cuda.call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(index))
    cuda.call("cuDeviceGetName", name, ctypes.c_int(100), device)
    cuda.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    try:
        cuda.call("cuCtxSetCurrent", context)
        cuda.call("cuModuleLoadData", ctypes.byref(module), PTX)
        cuda.call("cuModuleGetFunction", ctypes.byref(function), module, b"add")
        wrong = _sum(cuda, function)
    finally:
        # The context goes with all that was allocated and loaded in it.
        cuda.call("cuDevicePrimaryCtxRelease_v2", device)
    if wrong:
        raise OSError(f"GPU {index}: {wrong} of {LENGTH} sums are wrong")
    return f"GPU {index}: {name.value.decode()}: {LENGTH} sums of floats, all right"


def _sum(cuda: _Cuda, function: ctypes.c_void_p) -> int:
    """How many of the sums differ from the processor's."""
    floats = ctypes.c_float * LENGTH
    # Whole numbers below 2^24 are exact as floats, and so are their sums.
    left, right, result = floats(*range(LENGTH)), floats(*range(LENGTH, 0, -1)), floats()
    size = ctypes.c_size_t(ctypes.sizeof(floats))
    places = [ctypes.c_uint64() for _ in range(3)]
    for place in places:
        cuda.call("cuMemAlloc_v2", ctypes.byref(place), size)
    for place, values in zip(places, (left, right)):  # noqa: B905  (Python 3.9 knows no strict)
        cuda.call("cuMemcpyHtoD_v2", place, values, size)
    arguments = [*places, ctypes.c_uint(LENGTH)]
    pointers = (ctypes.c_void_p * 4)(*(ctypes.addressof(argument) for argument in arguments))
    grid, block = (LENGTH // _BLOCK, 1, 1), (_BLOCK, 1, 1)
    sizes = [ctypes.c_uint(number) for number in (*grid, *block, 0)]
    cuda.call("cuLaunchKernel", function, *sizes, None, pointers, None)
    cuda.call("cuCtxSynchronize")
    cuda.call("cuMemcpyDtoH_v2", result, places[2], size)
    for place in places:
        cuda.call("cuMemFree_v2", place)
    return sum(value != LENGTH for value in result)
