"""The small networks that tests train. Scripts in processes of their own import them too."""

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from nissa import Environment, Run


def small_network() -> torch.nn.Sequential:
    """Return a network of four parameters, the same at each call."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


class Toy:
    """A network, its optimizer, and a step of training."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.generator = generator

    def step(self, env: "Environment | Run | None" = None) -> torch.Tensor:
        """Train one step, and log its loss in an environment or run."""
        x = torch.randn(16, 8, generator=self.generator)
        loss: torch.Tensor = self.model(x).square().mean()
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        if env is not None:
            env.log_loss(loss)
        self.optimizer.step()
        return loss.detach()
