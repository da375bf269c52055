"""A fingerprint changes with every bit of the parameters it includes, and with nothing else."""

import torch

from models.fingerprint import is_base, is_trainable, parameter_hash


def test_the_hash_sees_every_changed_bit_of_the_included_parameters() -> None:
    first, second = torch.nn.Linear(3, 3).requires_grad_(False), torch.nn.Linear(3, 1)
    model = torch.nn.ModuleDict({"0": first, "1": torch.nn.ModuleDict({"lora_A": second})}).to(torch.bfloat16)
    before = {include: parameter_hash(model, include) for include in (None, is_trainable, is_base)}
    assert before == {include: parameter_hash(model, include) for include in before}
    assert len(set(before.values())) == 3
    with torch.no_grad():
        second.weight.view(torch.int16)[0, 0] ^= 1
    assert parameter_hash(model) != before[None]
    assert parameter_hash(model, is_trainable) != before[is_trainable]
    assert parameter_hash(model, is_base) == before[is_base]


def test_the_hash_sees_names_types_and_shapes() -> None:
    parameters = [torch.zeros(4), torch.zeros(2, 2), torch.zeros(4, dtype=torch.bfloat16), torch.zeros(())]
    modules = [torch.nn.ParameterDict({"a": torch.nn.Parameter(values)}) for values in parameters]
    modules.append(torch.nn.ParameterDict({"b": torch.nn.Parameter(torch.zeros(4))}))
    assert len({parameter_hash(module) for module in modules}) == len(modules)
