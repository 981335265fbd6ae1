"""What follows each matrix product, fused on the CPU: norm and activation, and the two-hot expectation.

`kernels.c` is compiled for this machine on first use and cached; where there is no C compiler, or the
tensors are not on the CPU, the same functions run as plain PyTorch operations. Activations are float32 or
bfloat16, the parameters of norms always float32, and so is the arithmetic.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tdmpc_ray.core.nn.math import symexp

logger = logging.getLogger(__name__)

_SOURCE = Path(__file__).with_name("kernels.c")
_FLAGS = [
    "-O3",
    "-march=native",
    "-fopenmp-simd",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-strict-aliasing",  # buffers hold floats and bf16 by turns
    "-shared",
    "-fPIC",
    # Compilers prefer half of AVX-512's width by default, a third slower here.
    *(["-mprefer-vector-width=512"] if platform.machine() in ("x86_64", "AMD64") else []),
]
MAX_DIM = 8192  # of kernels.c
TANH = -1  # in the place of a size of groups
_LINES_SHOWN = 5  # of a compiler's output
_PTR, _INT, _U32, _F32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint32, ctypes.c_float
_SIGNATURES = {
    "norm_act_forward": [_PTR] * 5 + [_INT] * 6 + [_U32, _U32, _F32],
    "norm_act_backward": [_PTR] * 10 + [_INT] * 5 + [_U32, _U32, _F32],
    "bias_elu_forward": [_PTR] * 3 + [_INT] * 4,
    "bias_elu_backward": [_PTR] * 4 + [_INT] * 4,
    "two_hot_value_forward": [_PTR] * 3 + [_INT] * 2,
    "two_hot_value_backward": [_PTR] * 4 + [_INT] * 2,
}


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where they cannot be had (`TDMPC_RAY_KERNELS=0` turns them off)."""
    if os.environ.get("TDMPC_RAY_KERNELS", "1") == "0":
        return None
    compiler = shutil.which("gcc") or shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        logger.warning(
            "no C compiler found (gcc, cc or clang): the CPU runs plain PyTorch operations, at about half "
            "the speed; install one, or set TDMPC_RAY_KERNELS=0 to be told no more"
        )
        return None
    try:
        lib = ctypes.CDLL(str(_compile(compiler)))
    except (OSError, subprocess.CalledProcessError) as error:
        logger.warning("cannot build the CPU kernels, plain PyTorch operations run instead: %s", _why(error))
        return None
    for name, types in _SIGNATURES.items():
        getattr(lib, name).argtypes = types
        getattr(lib, name).restype = None
    return lib


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc reuse freed memory of any size instead of returning it to the kernel.

    By default each temporary above 128 kB is mapped anew and its pages faulted in again, which makes
    memory-bound operations on activations up to three times slower. Applies to the whole process.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        m_trim_threshold, m_mmap_threshold = -1, -3
        for limit in (1 << 30, 32 << 20):  # older versions refuse the first
            if libc.mallopt(m_mmap_threshold, limit):
                libc.mallopt(m_trim_threshold, limit)
                return


def _compile(compiler: str) -> Path:
    """Build the shared object for this kind of machine, once; safe against concurrent builds."""
    # A home folder may be shared by machines of several kinds, and a compiler replaced by another version.
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, text=True).stdout
    about = [_SOURCE.read_text(), compiler, version, *_FLAGS, platform.machine(), _cpu_features()]
    key = hashlib.sha256("\0".join(about).encode()).hexdigest()[:16]
    folder = _cache_folder() or _own_folder()
    path = folder / f"kernels-{key}.so"
    if not path.exists():
        if not os.access(folder, os.W_OK):
            path = _own_folder() / path.name
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            built = Path(scratch) / "kernels.so"
            command = [compiler, *_FLAGS, "-o", str(built), str(_SOURCE), "-lm"]
            subprocess.run(command, check=True, capture_output=True)
            built.replace(path)
    return path


def _cpu_features(info: Path = Path("/proc/cpuinfo")) -> str:
    """What this machine's processor can do, which `-march=native` makes use of; empty where nothing tells."""
    lines = info.read_text().splitlines() if info.exists() else []
    # The first is that of x86, the second that of ARM.
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _why(error: OSError | subprocess.CalledProcessError) -> str:
    """What went wrong; of a compiler, the end of what it said."""
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) else None
    text = said.decode(errors="replace") if isinstance(said, bytes) else said or ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{error} {' | '.join(lines[-_LINES_SHOWN:])}".strip()


def _cache_folder() -> Path | None:
    """Where compiled kernels stay; None where there is no such place."""
    try:
        cache = os.environ.get("XDG_CACHE_HOME")
        folder = (Path(cache) if cache else Path.home() / ".cache") / "tdmpc_ray"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: a user without a home, as in containers
        return None
    return folder


@functools.cache
def _own_folder() -> Path:
    """A folder of this process, gone with it."""
    own = tempfile.mkdtemp(prefix="tdmpc_ray-")
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return Path(own)


def fusable(x: Tensor, parameter: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and parameter.dtype == torch.float32
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.shape[-1] == parameter.shape[-1] <= MAX_DIM
        and not torch.compiler.is_compiling()
        and library() is not None
    )


_Sizes = tuple[int, int, int, int, int, int, int, float]  # the trailing arguments of norm_act_*


def _norm_act_forward(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, sizes: _Sizes) -> Tensor:
    y = torch.empty_like(x)
    pointers = (t.data_ptr() for t in (x, offset, weight, bias, y))
    library().norm_act_forward(*pointers, sizes[0], *sizes)  # type: ignore[union-attr]
    return y


class _NormAct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, sizes: _Sizes) -> Tensor:
        y = _norm_act_forward(x, offset, weight, bias, sizes)
        ctx.save_for_backward(x, offset, weight, bias, y)
        ctx.sizes = sizes
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *params, y = ctx.saved_tensors
        dy, dx = grads[0].contiguous(), torch.empty_like(x)
        d_params = [torch.zeros_like(p) for p in params] if any(ctx.needs_input_grad[1:4]) else []
        library().norm_act_backward(  # type: ignore[union-attr]
            *(t.data_ptr() for t in (x, *params, y, dy, dx)),
            *((t.data_ptr() for t in d_params) if d_params else (0, 0, 0)),
            *ctx.sizes,
        )
        return dx, *(d_params or (None, None, None)), None


def _two_hot_value_forward(logits: Tensor, bins: Tensor) -> Tensor:
    value = torch.empty(*logits.shape[:-1], 1)
    library().two_hot_value_forward(  # type: ignore[union-attr]
        logits.data_ptr(), bins.data_ptr(), value.data_ptr(), value.numel(), len(bins)
    )
    return value


class _TwoHotValue(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, bins: Tensor) -> Tensor:
        lib = library()
        assert lib is not None
        logits = logits.contiguous()
        value = torch.empty(*logits.shape[:-1], 1)
        lib.two_hot_value_forward(
            logits.data_ptr(), bins.data_ptr(), value.data_ptr(), value.numel(), len(bins)
        )
        ctx.save_for_backward(logits, bins)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        logits, bins = ctx.saved_tensors
        dvalue, dlogits = grads[0].contiguous(), torch.empty_like(logits)
        pointers = (t.data_ptr() for t in (logits, bins, dvalue, dlogits))
        library().two_hot_value_backward(*pointers, dvalue.numel(), len(bins))  # type: ignore[union-attr]
        return dlogits, None


def norm_act(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, simnorm_dim: int = 0, dropout: float = 0.0
) -> Tensor:
    """What follows a product: its bias, dropout, LayerNorm, then Mish, SimNorm or tanh.

    Args:
        x: (..., D), float32 or bfloat16; with an ensemble of K, (K, B, D).
        offset: bias of the product, (D,) or (K, D).
        weight: of the LayerNorm, like `offset`.
        bias: of the LayerNorm, like `offset`.
        simnorm_dim: softmax over groups of this size (paper, equation 5); 0 means Mish, `TANH` tanh.
        dropout: probability; 0 where the caller is not training.

    Returns:
        Like `x`.
    """
    if fusable(x, weight) and offset.shape == weight.shape == bias.shape:
        x, offset, weight, bias = (t.contiguous() for t in (x, offset, weight, bias))
        dim, num = x.shape[-1], x.numel()
        # The mask is a hash of this seed; drawn from the global generator, as PyTorch's own dropout is.
        seed, threshold = (int(torch.randint(2**32, ())), int(dropout * 2**32)) if dropout else (0, 0)
        group_rows = max(num // weight.numel(), 1)
        is_bf16, rows = int(x.dtype == torch.bfloat16), num // dim
        sizes = (is_bf16, rows, dim, group_rows, simnorm_dim, seed, threshold, 1 / (1 - dropout))
        if torch.is_grad_enabled() and any(t.requires_grad for t in (x, offset, weight, bias)):
            return _NormAct.apply(x, offset, weight, bias, sizes)
        return _norm_act_forward(x, offset, weight, bias, sizes)  # autograd's bookkeeping costs as much again
    if weight.dim() == 2:
        offset, weight, bias = (p.unsqueeze(1) for p in (offset, weight, bias))
    dtype, x = x.dtype, x.float() + offset
    x = F.layer_norm(F.dropout(x, dropout) if dropout else x, x.shape[-1:])
    x = torch.addcmul(bias, x, weight)
    if simnorm_dim == TANH:
        return torch.tanh(x).to(dtype)
    x = x.unflatten(-1, (-1, simnorm_dim)).softmax(-1).flatten(-2) if simnorm_dim else _mish(x)
    return x.to(dtype)


def _mish(x: Tensor) -> Tensor:
    if not torch.compiler.is_exporting():
        return F.mish(x)
    # ONNX has no Mish, and its softplus would take most of a plan's time.
    e = x.clamp(max=20).exp()
    n = e * (e + 2)
    return x * (n / (n + 2))


def two_hot_value(logits: Tensor, bins: Tensor) -> Tensor:
    """Expected scalar under logits over `bins` (K,) in symlog space: (..., K) -> (..., 1) float32."""
    logits = logits.float()
    if fusable(logits, bins):
        logits = logits.contiguous()
        if torch.is_grad_enabled() and logits.requires_grad:
            return _TwoHotValue.apply(logits, bins)
        return _two_hot_value_forward(logits, bins)
    # No matrix product: autocast would run it in bfloat16, which tells only ten values of one size apart.
    mean = (logits.softmax(-1) * bins).sum(-1, keepdim=True)
    return symexp(mean)
