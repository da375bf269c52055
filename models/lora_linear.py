"""How an adapted linear layer computes on a CPU: y = W x + s·B(A x), LoRA (Hu et al. 2021), in matrix products alone.

PEFT's own layer goes over the wide output five times more for the sake of a narrow product: it casts the input to the
adapter's type, scales, adds and casts back, and the same again on the way back; products of float32 beside a base in
bfloat16 cost as much as those of the base. Here both sums are formed inside the products, each rounded once.

The adapter's parameters, their gradients and what an optimizer keeps of them are float32 whatever the base is in; the
products read A and s·B in the type of the base, whose output is rounded to that type anyway.
"""

from typing import Any, cast

import torch
from jaxtyping import Float
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class LoraLinear(Linear):
    """PEFT's adapted linear layer; what is not one plain adapter at work on a frozen layer goes PEFT's way."""

    def forward(self, x: Float[Tensor, "*columns inner"], *args: Any, **kwargs: Any) -> Float[Tensor, "*columns outer"]:
        """The layer's output with the adapter that is at work."""
        base = self.get_base_layer()
        if args or kwargs or not isinstance(base, nn.Linear) or not self._is_plain(base, x):
            return super().forward(x, *args, **kwargs)
        (name,) = self.active_adapters
        down, up = (cast(nn.Linear, half[name]).weight for half in (self.lora_A, self.lora_B))
        return _LoraProduct.apply(x, base.weight, base.bias, down, up, self.scaling[name])  # type: ignore[no-any-return]

    def _is_plain(self, base: nn.Linear, x: Tensor) -> bool:
        """Whether the output is W x + s·B(A x) and W is frozen, on a CPU."""
        active = self.active_adapters
        if self.disable_adapters or self.merged or len(active) != 1 or active[0] not in self.lora_A:
            return False
        dropout = self.lora_dropout[active[0]]
        drops = self.training and isinstance(dropout, nn.Dropout) and dropout.p > 0
        varied = active[0] in self.lora_variant or self.lora_bias[active[0]]
        frozen = not any(parameter.requires_grad for parameter in base.parameters())
        return x.device.type == "cpu" and frozen and not drops and not varied and x.dtype == base.weight.dtype


class _LoraProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scaling: float
    ) -> Tensor:
        columns = x.reshape(-1, x.shape[-1])
        inner, outer = down.to(x.dtype), (up * scaling).to(x.dtype)
        narrow = columns @ inner.t()
        output = functional.linear(columns, weight, bias).addmm_(narrow, outer.t())
        ctx.save_for_backward(columns, weight, inner, outer, narrow)
        ctx.scaling, ctx.shape, ctx.types = scaling, x.shape, (down.dtype, up.dtype)
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        columns, weight, inner, outer, narrow = ctx.saved_tensors
        above = gradient.reshape(-1, gradient.shape[-1])
        to_narrow = above @ outer
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = (above @ weight).addmm_(to_narrow, inner).view(ctx.shape)
        of_down, of_up = ctx.types
        to_down = (to_narrow.t() @ columns).to(of_down) if ctx.needs_input_grad[3] else None
        to_up = (above.t() @ narrow).to(of_up).mul_(ctx.scaling) if ctx.needs_input_grad[4] else None
        return to_x, None, None, to_down, to_up, None


def compute_in_products(adapted: nn.Module) -> None:
    """Let PEFT's adapted linear layers of a model compute as `LoraLinear`; others, quantised ones above all, stay."""
    for module in adapted.modules():
        # PEFT has no settled way to be given a class of one's own; the state of both is the same.
        if type(module) is Linear:
            module.__class__ = LoraLinear
