"""The two players: a generator that hears Z and noise, and a critic that sees real and generated targets.

Shapes: S rows, D width of Z, C numbers of a target, P components of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from ...errors import HetgraphError


class Space(nn.Module):
    """Targets as ``(y - mean) B / scale``: the P principal components of the training part, with one common scale.

    Between 0 and 1 only (pictures) where ``bounded``: what is decoded is clipped.

    Args:
        size: C.
        components: P; at most C.
        bounded: clip to 0 .. 1.
    """

    def __init__(self, size: int, components: int, bounded: bool = False) -> None:
        super().__init__()
        if not 1 <= components <= size:
            raise HetgraphError(f"expected from 1 to {size} components, got {components}")
        self.bounded = bounded
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("basis", torch.zeros(size, components))
        self.register_buffer("scale", torch.ones(()))
        self.mean: Tensor
        self.basis: Tensor
        self.scale: Tensor

    def fit(self, targets: Tensor) -> None:
        """Read mean, components and scale off training targets ``[S, C]``.

        Raises:
            HetgraphError: fewer targets than components, or all alike.
        """
        count = self.basis.shape[1]
        if min(targets.shape) < count:
            raise HetgraphError(f"{count} components need as many training targets, got {len(targets)}")
        mean = targets.double().mean(0)
        values, right = _principal(targets.double() - mean)
        if not values[0] > 0:
            raise HetgraphError("all training targets are alike")
        # the sign of a component is arbitrary: fixed, so that all machines have the same
        sign = right[:count].gather(1, right[:count].abs().argmax(1, keepdim=True)).sign()
        self.mean.copy_(mean)
        self.basis.copy_((right[:count] * sign).T)
        self.scale.copy_((values[:count].square().sum() / (len(targets) * count)).sqrt())

    def encode(self, targets: Tensor) -> Tensor:
        """``[..., C] -> [..., P]``."""
        return (targets - self.mean) @ self.basis / self.scale

    def decode(self, parts: Tensor) -> Tensor:
        """``[..., P] -> [..., C]``."""
        out = parts @ self.basis.T * self.scale + self.mean
        return out.clamp(0.0, 1.0) if self.bounded else out


def _principal(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values, large ones first, and right singular vectors as rows."""
    if len(rows) <= rows.shape[1]:
        _, values, right = torch.linalg.svd(rows, full_matrices=False)
        return values, right
    # many rows: the vectors are those of a small square matrix
    squares, vectors = torch.linalg.eigh(rows.T @ rows)
    return squares.flip(0).clamp(min=0).sqrt(), vectors.flip(1).T


class GeneratorNetwork(nn.Module):
    """``G(z, e) = W z + MLP([z; e])``, two hidden layers with batch normalisation.

    Args:
        width: D.
        noise: numbers of e, drawn from the normal distribution; 0: none, the same target for the same z.
        hidden: width inside.
        outputs: P.
    """

    def __init__(self, width: int, noise: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.noise = noise
        self.skip = nn.Linear(width, outputs, bias=False)
        self.inside = nn.Sequential(
            nn.Linear(width + noise, hidden),
            nn.BatchNorm1d(hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, outputs),
        )

    def forward(self, z: Tensor, noise: Tensor) -> Tensor:
        """``[S, D], [S, noise] -> [S, P]``."""
        return self.skip(z) + self.inside(torch.cat([z, noise], 1))

    @property
    def last(self) -> list[nn.Parameter]:
        """The weights that all that is made goes through."""
        return [*self.skip.parameters(), *self.inside[-1].parameters()]

    @torch.no_grad()
    def silence(self) -> None:
        """Make zeros, until it is trained."""
        for weight in self.last:
            weight.zero_()

    @property
    def silent(self) -> bool:
        """Whether all that is made is zero."""
        return not any(bool(weight.any()) for weight in self.last)


class Critic(nn.Module):
    """``D(y, z) = w . f(y) + (V z) . f(y)`` with spectral norms (projection discriminator, Miyato and Koyama, ICLR
    2018), and beside it the class of y, ``U f(y)`` (AC-GAN, Odena et al., ICML 2017).

    Args:
        inputs: P.
        width: D.
        hidden: width inside.
        classes: how many there are; 0: none.
        dropout: probability, inside.
    """

    def __init__(self, inputs: int, width: int, hidden: int, classes: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.inside = nn.Sequential(
            spectral_norm(nn.Linear(inputs, hidden)),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
            spectral_norm(nn.Linear(hidden, hidden)),
            nn.LeakyReLU(0.2),
            nn.Dropout(dropout),
        )
        self.real = spectral_norm(nn.Linear(hidden, 1))
        self.heard = spectral_norm(nn.Linear(width, hidden, bias=False))
        self.kind = nn.Linear(hidden, classes) if classes else None

    def forward(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """``[S, P], [S, D]`` to the critic's score ``[S]`` and the classes' scores."""
        seen = self.inside(y)
        score = self.real(seen).squeeze(1) + (self.heard(z) * seen).sum(1)
        return score, None if self.kind is None else self.kind(seen)


class Posterior(nn.Module):
    """``q(e | y, z)``: which noise a target would have been made of; a normal distribution per number of e.

    In training alone (CVAE-GAN, Bao et al., ICCV 2017; BicycleGAN, Zhu et al., NeurIPS 2017): without it a generator
    that hears a digit may always draw the same one.

    Args:
        inputs: P.
        width: D.
        hidden: width inside.
        noise: numbers of e.
    """

    def __init__(self, inputs: int, width: int, hidden: int, noise: int) -> None:
        super().__init__()
        self.inside = nn.Sequential(
            nn.Linear(inputs + width, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, hidden), nn.LeakyReLU(0.2)
        )
        self.out = nn.Linear(hidden, 2 * noise)

    def forward(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """``[S, P], [S, D]`` to a draw of e, ``[S, noise]``, and ``KL(q || N(0, 1))``, ``[S]``."""
        mean, log_variance = self.out(self.inside(torch.cat([y, z], 1))).chunk(2, 1)
        drawn = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        return drawn, (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2


def hinge(real: Tensor, made: Tensor) -> Tensor:
    """The critic's loss (Lim and Ye, 2017; Miyato et al., ICLR 2018): ``mean (1 - D(y))+ + mean (1 + D(G))+``."""
    return functional.relu(1 - real).mean() + functional.relu(1 + made).mean()


class Average:
    """Exponential moving average of a network's weights, with its current buffers (Yazici et al., ICLR 2019)."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network, self.decay, self.steps = network, decay, 0
        self.weights = [p.detach().clone() for p in network.parameters()]

    @torch.no_grad()
    def step(self) -> None:
        self.steps += 1
        # reached step by step, so that the first weights do not linger
        keep = min(self.decay, self.steps / (self.steps + 9))
        torch._foreach_lerp_(self.weights, list(self.network.parameters()), 1 - keep)

    @torch.no_grad()
    def put(self) -> None:
        """Give the network the averaged weights."""
        for own, mean in zip(self.network.parameters(), self.weights, strict=True):
            own.copy_(mean)
