"""The model functions that planning calls, each one call into `kernels.c`.

A plan is thousands of small operations; dispatching them one by one from Python takes longer than
computing them. Matrix products run in the BLAS that PyTorch ships, in float32 or in bfloat16 with sums in
float32; there each factor is rounded once, and nothing else. Where that BLAS, a C compiler or float32 weights
on the CPU are missing, a layer is wider than the kernels' buffers, a subclass has functions of its own, or
the model has one bin or (in bfloat16) no SimNorm, `fused_model` returns None and the planner runs the same
functions in PyTorch.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from tdmpc_ray.core.agents.tdmpc2.world_model import TaskContext, WorldModel
from tdmpc_ray.core.nn.kernels import MAX_DIM, library
from tdmpc_ray.core.nn.layers import EnsembleMLP

_PTR, _INT, _F32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


class _Mlp(ctypes.Structure):
    """`Mlp` of kernels.c."""

    _fields_ = [
        ("compute", _PTR),
        *((name, _PTR * 3) for name in ("w", "packed", "b", "gain", "shift")),
        ("mask", _PTR),
        *((name, _INT) for name in ("latent", "in_dim", "hidden", "out", "simnorm", "groups", "is_bf16")),
    ]


# As OpenBLAS and as MKL call them.
_GEMM = {"fp32": ("sgemm_", "SGEMM"), "bf16": ("sbgemm_", "GEMM_BF16BF16F32")}


@functools.cache
def _blas(dtype: str) -> int | None:
    """Address of the matrix product inside PyTorch, or None where the build does not export it."""
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        library = ctypes.CDLL(str(path))
    except OSError:
        return None
    for name in _GEMM[dtype]:
        if hasattr(library, name):
            return ctypes.cast(getattr(library, name), _PTR).value
    return None


@functools.cache
def _packing() -> ctypes.CDLL | None:
    """What brings weights into MKL's own order, as every product else does anew; None without MKL."""
    if _blas("fp32") is None:
        return None
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    if not all(hasattr(library, f"SGEMM_{name}") for name in ("PACK", "PACK_GET_SIZE", "COMPUTE")):
        return None
    library.SGEMM_PACK_GET_SIZE.restype = ctypes.c_size_t
    return library


# Of each model, for what is packed of its weights: kept, because MKL asks for megabytes more than it touches,
# and reserving so much for every plan would leave the heap full of holes.
_buffers: WeakKeyDictionary[WorldModel, dict[int, Tensor]] = WeakKeyDictionary()


def _pack(weight: Tensor, columns: int, buffers: dict[int, Tensor], index: int) -> Tensor:
    """The first columns of `weight` (out, in) for `SGEMM_COMPUTE`, with any rows, in a kept buffer."""
    mkl = _packing()
    assert mkl is not None
    # Fortran takes addresses, and what it is told of the rows changes nothing.
    out, rows, in_dim, stride = (
        ctypes.byref(ctypes.c_int(n)) for n in (len(weight), 512, columns, weight.stride(0))
    )
    size = mkl.SGEMM_PACK_GET_SIZE(b"A", out, rows, in_dim)
    packed = buffers.get(index)
    if packed is None or packed.nbytes < size:
        packed = buffers[index] = torch.empty(size // 4 + 1)
    one = ctypes.byref(_F32(1.0))
    data, to = _PTR(weight.data_ptr()), _PTR(packed.data_ptr())
    mkl.SGEMM_PACK(b"A", b"T", out, rows, in_dim, one, data, stride, to)
    return packed


@functools.cache
def _functions() -> ctypes.CDLL | None:
    lib = library()
    if lib is None:
        return None
    lib.rollout_forward.argtypes = [_PTR] * 7 + [_INT] * 4 + [_PTR] * 5
    lib.terminal_value_forward.argtypes = [_PTR] * 7 + [_INT] + [_F32] * 2 + [_PTR] * 2
    lib.policy_rollout_forward.argtypes = [_PTR] * 5 + [_INT] * 2 + [_F32] * 2 + [_PTR] * 2
    for name in ("rollout_forward", "terminal_value_forward", "policy_rollout_forward"):
        getattr(lib, name).restype = None
    return lib


_METHODS = ("next", "reward_logits", "reward", "termination_logit", "pi", "q_logits", "q", "scalar")  # in C


def _networks(model: WorldModel) -> list[nn.Module]:
    networks = [model.dynamics, model.reward_head, model.policy, model.q_ensemble, model.termination_head]
    return [network for network in networks if network is not None]


def fused_model(model: WorldModel, task: TaskContext | None = None, dtype: str = "fp32") -> FusedModel | None:
    """The fused form of `model`, or None where it cannot run (see the module's docstring)."""
    if torch.compiler.is_compiling() or _functions() is None or _blas(dtype) is None:
        return None
    if any(getattr(type(model), name, None) is not getattr(WorldModel, name) for name in _METHODS):
        return None  # a model of the user's own
    parameters = itertools.chain([model.bins], *(net.parameters() for net in _networks(model)))
    if not all(p.device.type == "cpu" and p.dtype == torch.float32 and p.is_contiguous() for p in parameters):
        return None
    cfg = model.cfg
    if max(cfg.mlp_dim, cfg.latent_dim, cfg.num_bins) > MAX_DIM or cfg.num_bins == 1:
        return None
    if dtype == "bf16" and not cfg.simnorm_dim:
        return None
    return FusedModel(model, task, dtype)


class FusedModel:
    """Made anew for every plan: views the weights of a `WorldModel`, or copies them as the BLAS wants them.

    Those copies overwrite the ones of the same model's last plan.

    Args:
        model: the weights.
        task: of each environment (N, ...), for a multi-task model.
        dtype: of the factors of products, fp32 or bf16; bf16 copies the weights.
    """

    def __init__(self, model: WorldModel, task: TaskContext | None = None, dtype: str = "fp32") -> None:
        lib, gemm = _functions(), _blas(dtype)
        assert lib is not None
        self._dtype = torch.bfloat16 if dtype == "bf16" else torch.float32
        self._lib, self._gemm, self._model, self._bins = lib, gemm, model, model.bins.data_ptr()
        self.action_dim = model.action_dim
        self.action_mask = None if task is None else task.action_mask.unsqueeze(1)
        self._task = task
        cfg = model.cfg
        self._kept: list[Tensor] = []  # what the structures point to and nobody else holds
        self._packs, self._buffers = itertools.count(), _buffers.setdefault(model, {})
        self._dynamics = self._mlp(_sequential(model.dynamics), task, cfg.simnorm_dim)
        self._reward = self._mlp(_sequential(model.reward_head), task)
        self._pi = self._mlp(_sequential(model.policy), task)
        if task is not None:
            self._kept.append(task.action_mask.contiguous())
            self._pi.mask = self._kept[-1].data_ptr()
        head = model.termination_head
        self._termination = None if head is None else self._mlp(_sequential(head), task)
        self._heads = [self._mlp(_head(model.q_ensemble, k), task) for k in range(cfg.num_q)]
        self._log_std = cfg.log_std_min, cfg.log_std_max
        # Upper bound of what any of the three functions needs per row, see kernels.c.
        widest = max(cfg.num_bins, 2 * model.action_dim)
        self._scratch_per_row = 2 * cfg.mlp_dim + 2 * cfg.latent_dim + widest + 2 * model.action_dim + 1

    def _mlp(self, layers: list[_Layer], task: TaskContext | None, simnorm_dim: int = 0) -> _Mlp:
        mlp, z_dim = _Mlp(), self._model.cfg.latent_dim
        for i, (weight, *rest) in enumerate(layers):
            self._kept.append(weight.to(self._dtype))
            mlp.w[i] = self._kept[-1].data_ptr()
            for field, tensor in zip(("b", "gain", "shift"), rest, strict=False):
                getattr(mlp, field)[i] = tensor.data_ptr()
        (first, bias, *_), (last, *_) = layers[0], layers[-1]
        mlp.hidden, mlp.in_dim = first.shape
        mlp.latent, mlp.out, mlp.simnorm, mlp.groups = z_dim, len(last), simnorm_dim, 1
        mlp.is_bf16 = self._dtype == torch.bfloat16
        if (mkl := _packing()) is not None and self._dtype == torch.float32:
            mlp.compute = ctypes.cast(mkl.SGEMM_COMPUTE, _PTR).value
            for i, (weight, *_) in enumerate(layers):
                packed = _pack(weight, z_dim if i == 0 else weight.shape[1], self._buffers, next(self._packs))
                mlp.packed[i] = packed.data_ptr()
        if task is not None:
            columns = first[:, z_dim : z_dim + task.embedding.shape[-1]]
            self._kept.append(torch.addmm(bias, task.embedding, columns.T).float())
            mlp.b[0], mlp.groups = self._kept[-1].data_ptr(), len(task.embedding)
        return mlp

    def _scratch(self, rows: int) -> Tensor:
        return torch.empty(rows * self._scratch_per_row)

    def _factor(self, x: Tensor, *shape: int) -> Tensor:
        """As a factor of products; C reads it without looking, so its shape is checked."""
        return _checked(x, *shape).to(self._dtype).contiguous()

    def rollout(self, z: Tensor, actions: Tensor, discount: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `ModelFunctions`."""
        horizon, num_envs, num, action_dim = actions.shape
        z = self._factor(z, num_envs, self._model.cfg.latent_dim)
        actions = self._factor(actions, horizon, num_envs, num, self._model.action_dim)
        discount = _checked(discount, num_envs, 1).float().contiguous()
        rows = num_envs * num
        total, weight = torch.empty(num_envs, num), torch.empty(num_envs, num)
        last_z, scratch = torch.empty(num_envs, num, z.shape[-1]), self._scratch(rows)
        termination = None if self._termination is None else ctypes.addressof(self._termination)
        self._lib.rollout_forward(
            self._gemm, ctypes.addressof(self._dynamics), ctypes.addressof(self._reward), termination,
            self._bins, z.data_ptr(), actions.data_ptr(), horizon, rows, num, action_dim, discount.data_ptr(),
            scratch.data_ptr(), total.data_ptr(), last_z.data_ptr(), weight.data_ptr(),
        )  # fmt: skip
        if self._dtype == torch.bfloat16:
            last_z = last_z.view(-1).view(torch.bfloat16)[: last_z.numel()].view(last_z.shape)
        return total, last_z, weight

    def terminal_value(self, z: Tensor, eps: Tensor, heads: Tensor) -> Tensor:
        """See `ModelFunctions`."""
        num_envs, num, _ = z.shape
        rows, model = num_envs * num, self._model
        z = self._factor(z, num_envs, num, model.cfg.latent_dim)
        eps = _checked(eps, num_envs, num, model.action_dim).float().contiguous()
        value, scratch = torch.empty(z.shape[:-1]), self._scratch(rows)
        first, second = (ctypes.addressof(self._heads[k]) for k in heads.tolist())
        self._lib.terminal_value_forward(
            self._gemm, ctypes.addressof(self._pi), first, second, self._bins, z.data_ptr(), eps.data_ptr(),
            rows, *self._log_std, scratch.data_ptr(), value.data_ptr(),
        )  # fmt: skip
        return value

    def policy_rollout(self, z: Tensor, eps: Tensor) -> Tensor:
        """See `ModelFunctions`."""
        horizon, num_envs, num, _ = eps.shape
        rows, model = num_envs * num, self._model
        eps = _checked(eps, horizon, num_envs, num, model.action_dim).float().contiguous()
        z = self._factor(z, num_envs, model.cfg.latent_dim).repeat_interleave(num, 0)
        actions, scratch = torch.empty_like(eps), self._scratch(rows)
        self._lib.policy_rollout_forward(
            self._gemm, ctypes.addressof(self._pi), ctypes.addressof(self._dynamics), z.data_ptr(),
            eps.data_ptr(), horizon, rows, *self._log_std, scratch.data_ptr(), actions.data_ptr(),
        )  # fmt: skip
        return actions

    def policy(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """See `ModelFunctions`."""
        return self._model.pi_gaussian(z, self._task)


def _checked(x: Tensor, *shape: int) -> Tensor:
    if x.shape != shape:
        raise ValueError(f"a tensor has shape {tuple(x.shape)} where the model needs {shape}")
    return x


_Layer = tuple[Tensor, ...]  # weight and bias, and of the LayerNorm where the layer has one


def _sequential(layers: nn.Sequential) -> list[_Layer]:
    return [tuple(layer.parameters()) for layer in layers]


def _head(ensemble: EnsembleMLP, k: int) -> list[_Layer]:
    return [tuple(parameter[k] for parameter in layer.parameters()) for layer in ensemble.layers]
