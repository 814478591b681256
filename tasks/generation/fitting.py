"""Training in two stages: first Z by a head that reads it, then generator and critic on the Z of the training part.

Shapes: S training samples, V views of each, D width of Z, P components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...errors import HetgraphError
from ...objectives import Classification, Regression
from ...progress import TrainingBar
from ...sample import Sample
from ...training import fit
from ..datasets import Dataset
from ..running import untrained
from .networks import Average, Critic, Posterior, Space, hinge
from .scoring import features
from .settings import GenerationSettings, suggested
from .start import fit_start
from .translations import Translation
from .translator import Translator

ADAM = (0.5, 0.9)


@dataclass(frozen=True)
class Disturbed(Sequence[Sample]):
    """Samples whose nodes are stretched in order and masked anew whenever they are read; by torch's generator.

    A stretch leaves out up to ``stretch`` nodes at either end and interpolates the rest to the old number; a mask puts
    the sample's mean in the place of up to ``mask`` successive nodes and of as many successive features (SpecAugment,
    Park et al., Interspeech 2019). Both make sense of sequences of frames.
    """

    samples: Sequence[Sample]
    stretch: float
    mask: int

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: Any) -> Any:
        sample = self.samples[i]
        nodes = {name: {**values, "x": self._heard(values["x"].float())} for name, values in sample.nodes.items()}
        return Sample(id=sample.id, target=sample.target, edges=sample.edges, nodes=nodes)

    def _heard(self, x: Tensor) -> Tensor:
        count, width = x.shape
        if self.stretch and count > 1:
            ends = torch.rand(2) * min(self.stretch, (count - 1) / 2)
            place = torch.linspace(float(ends[0]), count - 1 - float(ends[1]), count)
            low = place.floor().long().clamp(0, count - 2)
            x = torch.lerp(x[low], x[low + 1], (place - low)[:, None])
        if self.mask:
            x = x.clone()
            rows, columns = (int(torch.randint(self.mask + 1, ())) for _ in range(2))
            first, left = int(torch.randint(count, ())), int(torch.randint(width, ()))
            x[first : first + rows] = x.mean(0)
            x[:, left : left + columns] = x.mean(1, keepdim=True)
        return x


def train(
    source: Translation, settings: GenerationSettings | None = None, *, seed: int = 0, progress: bool = True
) -> Translator:
    """A translator, trained; of the first stage the best epoch by the validation part is kept.

    Z is first taught by a head: the class where targets are exchanged within classes, else the components of the
    sample's own target. Then fusion rests, and generator and critic play on the Z of the training part.

    With ``anchor`` the generator starts silent beside a ridge regression (:func:`.start.fit_start`), and the critic and
    all losses judge the sum of both. If recall at 10 on the validation part is lower after the game than before, the
    start is kept and the generator silenced (``model.kept_start``): such a model makes the same whatever the noise.
    Without a validation part the trained generator stays.

    Args:
        source: what to learn from.
        settings: default: what suits the translation.
        seed: of weights and training.
        progress: show a progress bar.

    Raises:
        HetgraphError: impossible settings, ``anchor`` where targets are exchanged, bad samples, or a loss that is not
            finite.
    """
    s = settings or suggested(source.name)
    if s.anchor and source.exchange:
        raise HetgraphError(f"{source.name}: anchor needs a target of every sample's own, but they are exchanged")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        bounded = bool((source.train >= 0).all() and (source.train <= 1).all())
        space = Space(source.train.shape[1], min(s.components, len(source.train) - 1, source.train.shape[1]), bounded)
        space.fit(source.train)
        data = _taught(source, space)
        predictor = untrained(data, s)
        model = Translator(
            predictor,
            source.target,
            source.nodes,
            source.dim,
            components=space.basis.shape[1],
            noise=s.noise,
            hidden=s.hidden,
            bounded=bounded,
            places={name: value.shape[1] for name, value in source.places.items()},
            anchor=s.anchor,
        )
        model.space.load_state_dict(space.state_dict())
        for name, value in source.places.items():
            model.places[name].copy_(value)
        samples = Disturbed(data.train, s.stretch, s.mask) if s.stretch or s.mask else data.train
        training = replace(s.training, seed=seed, standardize=data.standardize)
        fit(predictor, samples, valid=data.valid, settings=training, progress=progress)
        model.to(next(predictor.parameters()).device)
        torch.manual_seed(seed)
        with torch.no_grad():
            views = torch.stack([model.hear(samples).z for _ in range(s.views)], 1).clone()
            flat = views.flatten(0, 1)
            model.center.copy_(flat.mean(0))
            model.spread.copy_(flat.std(0).clamp(min=1e-6))
        closed = fit_start(model, source) if s.anchor else None
        judged = s.anchor and bool(source.samples("valid"))
        before = features(model, source, "valid", seed)["recall@10"] if judged else 0.0
        _Game(model, source, s, model.condition(views), progress, closed).play()
        if judged and features(model, source, "valid", seed)["recall@10"] < before:
            model.generator.silence()
    return model.eval()


def _taught(source: Translation, space: Space) -> Dataset:
    """The data set whose targets the head learns."""
    if source.exchange:
        if not isinstance(source.data.objective, Classification):
            raise HetgraphError(f"{source.name}: targets are exchanged within classes, but the samples have none")
        return source.data
    objective = Regression(tuple(f"c{i}" for i in range(space.basis.shape[1])))
    parts = {
        part: [
            Sample(id=sample.id, target=row, nodes=sample.nodes, edges=sample.edges)
            for sample, row in zip(source.samples(part), space.encode(source.targets(part)), strict=True)
        ]
        for part in ("train", "valid", "test")
    }
    valid = parts["valid"] or None
    return replace(source.data, objective=objective, train=parts["train"], valid=valid, test=parts["test"])


@dataclass
class _Game:
    """Generator against critic."""

    model: Translator
    source: Translation
    settings: GenerationSettings
    views: Tensor
    progress: bool
    closed: Tensor | None = None
    kinds: Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        s, source = self.settings, self.source
        device = self.views.device
        self.real = self.model.space.encode(source.train.to(device))
        self.kinds = source.labels("train").to(device) if source.exchange else None
        # the places of every class, one after the other, to draw a target of the same class from
        if self.kinds is not None:
            self.order = self.kinds.argsort(stable=True)
            self.sizes = self.kinds.bincount(minlength=source.data.objective.outputs)
            self.starts = self.sizes.cumsum(0) - self.sizes
        classes = source.data.objective.outputs if source.exchange and s.auxiliary else 0
        width = self.views.shape[-1]
        self.critic = Critic(self.real.shape[1], width, s.hidden, classes, s.critic_dropout).to(device)
        network = self.model.generator
        self.posterior = None
        if s.recovered and s.noise:
            self.posterior = Posterior(self.real.shape[1], width, s.hidden, s.noise).to(device)
        players = [*network.parameters(), *(self.posterior.parameters() if self.posterior else ())]
        self.moves = [
            torch.optim.Adam(players, lr=s.generator_lr, betas=ADAM),
            torch.optim.Adam(self.critic.parameters(), lr=s.critic_lr, betas=ADAM),
        ]
        self.average = Average(network, s.average)

    def play(self) -> None:
        s = self.settings
        self.model.generator.train()
        with TrainingBar(self.progress, 1, s.steps) as bar:
            for step in range(s.steps):
                rate = min(1.0, 2 * (1 - step / s.steps))
                for move, lr in zip(self.moves, (s.generator_lr, s.critic_lr), strict=True):
                    move.param_groups[0]["lr"] = lr * rate
                loss = self._critic_step() if s.adversarial else 0.0
                loss += self._generator_step()
                self.average.step()
                bar.step(0, loss, {})
        self.average.put()
        self._settle()

    def _batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Z with jitter ``[b, D]``, noise ``[b, noise]`` and places of samples ``[b]``."""
        count, views = self.views.shape[:2]
        places = torch.randint(count, (self.settings.batch,), device=self.views.device)
        z = self.views[places, torch.randint(views, places.shape, device=places.device)]
        z = z + self.settings.jitter * torch.randn_like(z)
        noise = torch.randn(len(z), self.model.generator.noise, device=z.device)
        return z, noise, places

    def _made(self, z: Tensor, noise: Tensor, places: Tensor) -> Tensor:
        """Components of the samples at ``places``, ``[b, P]``."""
        return self.model.make(z, noise, None if self.closed is None else self.closed[places])

    def _partners(self, places: Tensor) -> Tensor:
        """Places of targets for the samples at ``places``: their own, or any of their class."""
        if self.kinds is None:
            return places
        kinds = self.kinds[places]
        drawn = (torch.rand(len(places), device=places.device) * self.sizes[kinds]).long()
        return self.order[self.starts[kinds] + drawn.minimum(self.sizes[kinds] - 1)]

    def _critic_step(self) -> float:
        z, noise, places = self._batch()
        partners = self._partners(places)
        with torch.no_grad():
            made = self._made(z, noise, places)
        score, kind = self.critic(torch.cat([self.real[partners], made]), torch.cat([z, z]))
        real, fake = score.chunk(2)
        loss = hinge(real, fake)
        if kind is not None and self.kinds is not None:
            # of real targets alone: what is made may be wrong
            loss = loss + functional.cross_entropy(kind[: len(z)], self.kinds[partners])
        return self._move(1, loss)

    def _generator_step(self) -> float:
        s = self.settings
        z, noise, places = self._batch()
        loss = torch.zeros((), device=z.device)
        if self.posterior is None:
            made = self._made(z, noise, places)
        else:
            wanted = self.real[self._partners(places)]
            drawn, apart = self.posterior(wanted, z)
            # in one batch, so that the normalisation sees both kinds of noise
            twice = torch.cat([noise, drawn])
            made, again = self._made(torch.cat([z, z]), twice, torch.cat([places, places])).chunk(2)
            error = (again - wanted).square().sum(1) / 2 + s.divergence * apart
            loss = loss + s.recovered * error.mean() / wanted.shape[1]
        if s.adversarial:
            score, kind = self.critic(made, z)
            loss = loss - s.adversarial * score.mean()
            if kind is not None and self.kinds is not None:
                loss = loss + s.auxiliary * functional.cross_entropy(kind, self.kinds[places])
        if s.paired and self.kinds is None:
            own = self.real[places]
            away = (made - own).abs().mean() + 1 - functional.cosine_similarity(made, own).mean()
            loss = loss + s.paired * away
        return self._move(0, loss)

    def _move(self, player: int, loss: Tensor) -> float:
        value = float(loss.detach())
        if not torch.isfinite(loss):
            raise HetgraphError(f"the loss of the {('generator', 'critic')[player]} is {value}; lower its rate")
        self.moves[player].zero_grad()
        loss.backward()
        self.moves[player].step()
        return value

    @torch.no_grad()
    def _settle(self) -> None:
        """Means and variances of the batch normalisation, for the averaged weights."""
        norms = [m for m in self.model.generator.modules() if isinstance(m, torch.nn.BatchNorm1d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        for _ in range(max(1, 20 * 128 // self.settings.batch)):
            z, noise, _ = self._batch()
            self.model.generator(z, noise)
        for norm in norms:
            norm.momentum = 0.1
