"""Training in two stages: first Z by a head that reads it, then generator and critic on the Z of the training part.

Shapes: S training samples, V views of each, D width of Z, P components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...comparison_runs import make_model
from ...errors import HetgraphError
from ...objectives import Classification, Regression
from ...progress import TrainingBar
from ...sample import Sample
from ...training import TrainingSettings, fit
from ..datasets import Dataset
from ..running import TaskSettings
from .networks import Average, Critic, Space, hinge
from .translations import Translation
from .translator import Translator

ADAM = (0.5, 0.9)


@dataclass(frozen=True)
class GenerationSettings(TaskSettings):
    """Fusion and its training, as every task has them, and the two players.

    Attributes:
        components: principal components of the target that are made; as many as there are training targets, if fewer.
        noise: numbers that are drawn for every target.
        hidden: width inside generator and critic.
        steps: of the generator, and as many of the critic.
        batch: samples of a step.
        generator_lr, critic_lr: rates of Adam, brought down to zero linearly over the second half.
        adversarial: weight of the critic's word in the generator's loss.
        auxiliary: weight of the critic's classes (AC-GAN); where targets are exchanged within classes.
        paired: weight of ``|G(z, e) - y|`` and of one minus their cosine (pix2pix, Isola et al., CVPR 2017); where
            every sample has a target of its own.
        average: decay of the average of the generator's weights that is kept.
        views: times that every training sample is heard, each time disturbed otherwise.
        stretch: at most so many frames are lost at either end when the rest is stretched to the old length.
        mask: at most so many successive nodes, and so many features in a row, give way to the mean.
        jitter: standard deviation of what is added to the standardised Z in training (StackGAN's conditioning
            augmentation, Zhang et al., ICCV 2017).
    """

    components: int = 100
    noise: int = 32
    hidden: int = 256
    steps: int = 1500
    batch: int = 128
    generator_lr: float = 1e-3
    critic_lr: float = 1e-3
    adversarial: float = 1.0
    auxiliary: float = 0.0
    paired: float = 0.0
    average: float = 0.99
    views: int = 1
    stretch: float = 0.0
    mask: int = 0
    jitter: float = 0.0
    critic_dropout: float = 0.0

    def __post_init__(self) -> None:
        least = {"components": 1, "noise": 0, "hidden": 1, "steps": 1, "batch": 2, "views": 1, "mask": 0}
        wrong = [name for name, low in least.items() if getattr(self, name) < low]
        weights = ("adversarial", "auxiliary", "paired", "stretch", "jitter", "average", "critic_dropout")
        wrong += [name for name in weights if getattr(self, name) < 0]
        wrong += [name for name in ("generator_lr", "critic_lr") if getattr(self, name) <= 0]
        if wrong or not self.average < 1:
            raise HetgraphError(f"impossible setting of the generator: {(wrong or ['average'])[0]} of {self}")


SUGGESTED: dict[str, dict[str, Any]] = {
    "digits": {
        "epochs": 8,
        "patience": 8,
        "batch_size": 64,
        "lr": 3e-3,
        "modality_dropout": 0.0,
        "auxiliary": 0.5,
        "views": 4,
        "stretch": 2.0,
        "mask": 3,
        "jitter": 0.2,
    },
    "tuxpaint": {
        "epochs": 15,
        "patience": 15,
        "lr": 1e-3,
        "modality_dropout": 0.0,
        "paired": 1.0,
        "adversarial": 0.1,
        "noise": 8,
        "steps": 600,
    },
}
SUGGESTED["tuxpaint_back"] = SUGGESTED["tuxpaint"]
"""Translation -> settings, chosen on validation parts with the method ``graph``."""


def suggested(name: str, **changes: Any) -> GenerationSettings:
    """What suits a translation, with changes.

    Args:
        name: of the translation; of another the defaults.
        changes: attributes of :class:`GenerationSettings` or of :class:`~hetgraph.training.TrainingSettings`.

    Raises:
        HetgraphError: there is no such attribute, or a value is impossible.
    """
    chosen = {**SUGGESTED.get(name, {}), **changes}
    own = {f.name for f in fields(GenerationSettings)} - {"training"}
    both = {f.name for f in fields(TrainingSettings)}
    if unknown := sorted(set(chosen) - own - both):
        raise HetgraphError(f"no setting {unknown[0]!r}; known: {', '.join(sorted(own | both))}")
    plain = GenerationSettings()
    # "average" is the generator's: that of the fusion's training is set in ``training``
    training = replace(plain.training, **{key: value for key, value in chosen.items() if key not in own})
    return replace(plain, training=training, **{key: value for key, value in chosen.items() if key in own})


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

    Args:
        source: what to learn from.
        settings: default: what suits the translation.
        seed: of weights and training.
        progress: show a progress bar.

    Raises:
        HetgraphError: impossible settings, bad samples, or a loss that is not finite.
    """
    s = settings or suggested(source.name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        bounded = bool((source.train >= 0).all() and (source.train <= 1).all())
        space = Space(source.train.shape[1], min(s.components, len(source.train) - 1, source.train.shape[1]), bounded)
        space.fit(source.train)
        data = _taught(source, space)
        predictor = make_model(data, s.method, s.width, s.layers, s.heads, s.dropout)
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
            views = torch.stack([model.hear(samples)[0] for _ in range(s.views)], 1).clone()
            flat = views.flatten(0, 1)
            model.center.copy_(flat.mean(0))
            model.spread.copy_(flat.std(0).clamp(min=1e-6))
        _Game(model, source, s, model.condition(views), progress).play()
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
        self.moves = [
            torch.optim.Adam(network.parameters(), lr=s.generator_lr, betas=ADAM),
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
            made = self.model.generator(z, noise)
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
        made = self.model.generator(z, noise)
        loss = torch.zeros((), device=z.device)
        if s.adversarial:
            score, kind = self.critic(made, z)
            loss = loss - s.adversarial * score.mean()
            if kind is not None and self.kinds is not None:
                loss = loss + s.auxiliary * functional.cross_entropy(kind, self.kinds[places])
        if s.paired and self.kinds is None:
            own = self.real[places]
            apart = (made - own).abs().mean() + 1 - functional.cosine_similarity(made, own).mean()
            loss = loss + s.paired * apart
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
