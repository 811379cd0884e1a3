"""A GPU that is not there: tensors that say they are on one, and refuse to meet those that do not.

Torch's own fake tensors know shape and device of a tensor but not its numbers, so they cannot
follow a greedy search, which looks at numbers to decide what comes next. These are made in the same
way (a wrapper with a device of its own, and a mode that sees every operation), but carry numbers,
on the processor. So code for a GPU can be run where there is none: the results must be those of the
processor, and an operation with tensors on both devices is an error, as on a real one.
"""

# ruff: noqa: SLF001 (torch has no public names for these)

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

GPU = torch.device("cuda:0")
TRANSFERS = ("aten::to", "aten::_to_copy", "aten::copy_")
TAKE_CPU_INDICES = ("aten::index", "aten::index_put_", "aten::index_put")


class OnGPU(torch.Tensor):
    """A tensor that says that it is on the GPU."""

    carried: torch.Tensor

    @staticmethod
    def __new__(cls, carried):
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            carried.size(),
            strides=carried.stride(),
            storage_offset=carried.storage_offset(),
            dtype=carried.dtype,
            device=GPU,
        )
        tensor.carried = carried
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    def numpy(self, *, force=False):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def tolist(self):
        return self.carried.tolist()

    def __repr__(self):
        return f"OnGPU({self.carried})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


class PretendGPU(TorchDispatchMode):
    """While it is active, device="cuda" gives tensors `OnGPU`; only in the thread that enters."""

    _mode_key = torch._C._TorchDispatchModeKey.FAKE  # then torch does not look for a driver

    def __enter__(self):
        torch._C._ensureCUDADeviceGuardSet()
        torch._C._set_only_lift_cpu_tensors(True)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        return super().__enter__()

    def __exit__(self, *error):
        torch._C._set_only_lift_cpu_tensors(False)
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        return super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


def compute(func: Any, args: tuple, kwargs: dict) -> Any:
    """One operation, on the numbers that the tensors carry."""
    name = func._schema.name
    tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
    wrapped = {id(t.carried): t for t in tensors if isinstance(t, OnGPU)}
    if wrapped and name not in TRANSFERS:
        refuse_others(name, tensors)
    devices = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, torch.device)]
    to_gpu = devices[0].type == "cuda" if devices else bool(wrapped)
    if name == "aten::copy_":
        to_gpu = isinstance(args[0], OnGPU)
    elif name == "aten::_local_scalar_dense":
        to_gpu = False
    if name == "aten::cudnn_batch_norm":  # what torch takes for a batch norm on a GPU
        func, args = torch.ops.aten.native_batch_norm.default, args[:8]

    def unwrap(value):
        if isinstance(value, torch.device):
            return torch.device("cpu")
        return value.carried if isinstance(value, OnGPU) else value

    args, kwargs = tree_map(unwrap, (args, kwargs))
    result = func(*args, **kwargs)

    def wrap(value):
        if not to_gpu or not isinstance(value, torch.Tensor) or isinstance(value, OnGPU):
            return value
        # What was changed in place stays the same object.
        return wrapped[id(value)] if id(value) in wrapped else OnGPU(value)

    return tree_map(wrap, result)


def refuse_others(name: str, tensors: list[torch.Tensor]) -> None:
    """As torch does: only numbers, and row numbers, may come from the processor."""
    if name.startswith("mkldnn::"):
        raise RuntimeError(f"{name} does not exist on a GPU")
    if name in TAKE_CPU_INDICES:
        if not isinstance(tensors[0], OnGPU):
            raise RuntimeError(f"{name}: indices are on a GPU, and the tensor is not")
        tensors = [tensor for tensor in tensors if tensor.is_floating_point()]
    if not all(isinstance(tensor, OnGPU) or tensor.dim() == 0 for tensor in tensors):
        raise RuntimeError(f"{name}: expected all tensors to be on the same device")
