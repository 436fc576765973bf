"""Dropout: what is dropped, how often, and its gradients."""

import numpy as np
import pytest
import torch
from ensembles import CNN, arrays_of, batch_inputs, changed, images, new_trainer, record_steps
from torch import nn
from torch.func import functional_call

from plasticity.models import architecture

ARMS = [{"rate": 0.2}, {"rate": 0.6}]
SETTINGS = {
    "mlp": (changed(network={"options": {"width": 40, "depth": 2}}), 4),
    "crelu": (changed(network={"activation": "crelu", "options": {"width": 40, "depth": 2}}), 4),
    "cnn": (changed(CNN, problem={"tasks": 2, "epochs": 1}, network={"activation": "tanh"}), 16),
    "vit": (
        changed(
            problem={"tasks": 2, "epochs": 1},
            network={"kind": "vit", "options": {"width": 8, "depth": 1, "heads": 2}},
        ),
        8,
    ),
}


def masked_steps(kind, setting, size):
    """Train two tasks; the trainer, and the masks and numbers of each step."""
    trainer = new_trainer(images(size), "dropout", ARMS, [0, 3], setting)
    method, masks = trainer.interventions["dropout"], []
    found = method.masks

    def noted(learner):
        masks.append(found(learner))
        return masks[-1]

    method.masks = noted
    losses = []
    take = trainer.learner.optimizer.step

    def step(parameters, gradient):
        learner = trainer.learner
        inputs = batch_inputs(trainer)
        split = [
            {
                name: tensor.detach().clone()
                for name, tensor in learner.parameters.split(
                    matrix[:, : learner.parameters.flat.shape[1]]
                ).items()
            }
            for matrix in (parameters, gradient)
        ]
        losses.append((inputs, trainer.batches.batch_labels.view(4, -1).clone(), *split))
        take(parameters, gradient)

    trainer.learner.optimizer.step = step
    for _ in range(2):
        trainer.on_task_start()
        trainer.learn()
    return trainer, list(zip(masks, losses, strict=True))


class Masked(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.activation, self.mask = activation, None

    def forward(self, x):
        return self.activation(x) * self.mask


@pytest.mark.parametrize("kind", SETTINGS)
def test_gradients_equal_those_of_a_network_with_masked_activations(kind):
    setting, size = SETTINGS[kind]
    _, steps = masked_steps(kind, setting, size)
    network = architecture.build(setting.network, (1, size, size), 3).double()
    layers = []
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if name.startswith("activation"):
                setattr(module, name, Masked(child))
                layers.append(getattr(module, name))
    for masks, (inputs, labels, parameters, gradient) in steps[:3]:
        for run in range(4):
            for layer, mask in zip(layers, masks.values(), strict=True):
                layer.mask = mask[run]
            tensors = {name: tensor[run].requires_grad_() for name, tensor in parameters.items()}
            loss = nn.functional.cross_entropy(
                functional_call(network, tensors, (inputs[run],)), labels[run]
            )
            for name, derivative in zip(
                tensors, torch.autograd.grad(loss, list(tensors.values())), strict=True
            ):
                torch.testing.assert_close(gradient[name][run], derivative, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_numbers_are_dropped_independently_with_the_rate_and_scaled_otherwise(kind):
    setting, size = SETTINGS[kind]
    _, steps = masked_steps(kind, setting, size)
    every = {
        layer: torch.stack([masks[layer] for masks, _ in steps], dim=1) for layer in steps[0][0]
    }  # (run, step, n, …)
    for values in every.values():
        for run in range(4):
            rate = ARMS[run // 2]["rate"]
            mine = values[run]
            assert set(mine.unique().tolist()) == {0.0, 1 / (1 - rate)}
            dropped = (mine == 0).double()
            error = (rate * (1 - rate) / mine.numel()) ** 0.5
            assert abs(dropped.mean() - rate) < 4 * error
            assert not torch.equal(mine, values[run ^ 1])  # another seed
            halves = dropped.flatten(1)  # of a step
            assert len(halves.unique(dim=0)) == len(halves)
            assert (
                abs(np.corrcoef(halves[:-1].flatten(), halves[1:].flatten())[0, 1])
                < 4 / halves[1:].numel() ** 0.5
            )  # one step and the next
        assert (
            (values[:2] == 0) <= (values[2:] == 0)
        ).all()  # at the higher rate all that is dropped at the lower, and more


def test_layers_have_different_masks():
    setting, size = SETTINGS["mlp"]
    _, steps = masked_steps("mlp", setting, size)
    first, second = steps[0][0].values()
    assert first.shape == second.shape
    assert not torch.equal(first, second)


def test_hidden_activations_are_masked_and_final_errors_are_not(data):
    setting = changed(problem={"tasks": 1})
    trainer, steps, _ = record_steps(data, "dropout", [{"rate": 0.5}], [0], setting)
    for step in steps:
        tensors = arrays_of(step.before, 0)
        whole = np.maximum(
            step.inputs[0].flatten(1).numpy() @ tensors["hidden_1.weight"].T
            + tensors["hidden_1.bias"],
            0,
        )
        hidden = step.hidden["hidden_1"][0].numpy()
        on = hidden != 0
        np.testing.assert_allclose(hidden[on], 2 * whole[on], rtol=1e-10)
        assert 0.2 < (whole[~on] > 0).sum() / (whole > 0).sum() < 0.8
    x = trainer.batches.inputs.flatten(1)
    for layer in ("hidden_1", "hidden_2", "output"):
        weight, bias = (
            trainer.learner.parameters.tensors[f"{layer}.{part}"][0].detach()
            for part in ("weight", "bias")
        )
        x = x @ weight.T + bias
        x = x if layer == "output" else x.relu()
    assert trainer.recorder.outcomes["final_loss"].item() == pytest.approx(
        nn.functional.cross_entropy(x, trainer.batches.labels).item(), rel=1e-6
    )
    assert trainer.recorder.outcomes["final_error"].item() == pytest.approx(
        (x.argmax(dim=1) != trainer.batches.labels).double().mean().item(), rel=1e-6
    )


def test_rate_of_one_drops_everything_and_stays_finite(data):
    trainer, steps, _ = record_steps(data, "dropout", [{"rate": 1}], [0], dtype=torch.float32)
    assert not any(values.any() for step in steps for values in step.hidden.values())
    assert not trainer.recorder.outcomes["status"].any()
