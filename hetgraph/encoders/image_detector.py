"""Pictures to nodes by a network that finds objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hetgraph.errors import HetgraphError

from .base import Nodes, number, whole
from .image import ImageEncoder
from .media import Item
from .pretrained import folder_hash, load, model_folder

if TYPE_CHECKING:
    from typing import Self

    from PIL.Image import Image


class ObjectDetector(ImageEncoder):
    """The objects that a detector of transformers finds (DETR and its kin, YOLOS), one node each.

    ``x`` is the decoder's last hidden state of the object (of YOLOS the state of its detection token), ``dim`` as
    wide as the network. The fields are ``box``, ``score [N, 1]`` (0..1) and ``label`` (``[N]``, the number of the
    class; the attribute ``labels`` has the names). Objects come in the order of their scores; overlapping ones are
    kept. A picture in which nothing reaches the threshold has its best object alone.

    Args:
        model: local folder with ``config.json``, safetensors weights and ``preprocessor_config.json``, or the id
            of a model on the hub.
        threshold: least score of an object.
        max_objects: most objects of a picture.
        revision: branch, tag or commit of a model of the hub.
        local_files_only: with False a model of the hub is downloaded if need be. Not part of the config.

    Raises:
        HetgraphError: the model is missing, damaged, or no detector of this kind; a setting out of range.

    Source: Carion et al., End-to-End Object Detection with Transformers, ECCV 2020.
    """

    neutral = frozenset({"model", "revision"})

    def __init__(
        self,
        model: str | Path,
        threshold: float = 0.5,
        max_objects: int = 36,
        revision: str | None = None,
        local_files_only: bool = True,
    ) -> None:
        from transformers import AutoImageProcessor, AutoModelForObjectDetection

        super().__init__()
        self.threshold = number("ObjectDetector", "threshold", threshold, 0, 1)
        self.max_objects = whole("ObjectDetector", "max_objects", max_objects, 1)
        folder = model_folder(model, revision, local_files_only)
        self.model = str(folder.resolve()) if Path(model).expanduser().is_dir() else str(model)
        self.revision = revision
        self.weights = folder_hash(folder)
        self.device = torch.device("cpu")
        self._processor = load(AutoImageProcessor, folder)
        self.network = load(AutoModelForObjectDetection, folder)
        self.labels = {int(i): str(name) for i, name in self.network.config.id2label.items()}
        self.fields = {"box": 4, "score": 1, "label": 0}
        self.dim = self._dim_of_blank()

    def settings(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "threshold": self.threshold,
            "max_objects": self.max_objects,
            "revision": self.revision,
        }

    def to(self, device: str | torch.device) -> Self:
        """Move the network; the nodes still come out on the CPU. Gives the encoder itself."""
        self.device = torch.device(device)
        self.network.to(self.device)
        return self

    def encode(self, items: Sequence[Item]) -> list[Nodes]:
        return [self._nodes(self.read(item)) for item in items]

    def _dim_of_blank(self) -> int:
        from PIL import Image

        return int(self._nodes(Image.new("RGB", (64, 48)))["x"].shape[1])

    def _nodes(self, image: Image) -> Nodes:
        hidden, scores, labels, boxes = self._found(image)
        order = scores.argsort(descending=True, stable=True)[: self.max_objects]
        count = max(1, int((scores[order] >= self.threshold).sum()))
        kept = order[:count]
        return {"x": hidden[kept], "box": boxes[kept], "score": scores[kept, None], "label": labels[kept]}

    def _found(self, image: Image) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Hidden states ``[Q, dim]``, best score and class ``[Q]``, and boxes ``[Q, 4]`` of all Q queries.

        One picture at a time: pictures of several sizes in a batch would be padded.
        """
        inputs = self._processor(images=[image], return_tensors="pt").to(self.device)
        try:
            with torch.inference_mode():
                output = self.network(**inputs)
            logits, centred, hidden = output.logits[0], output.pred_boxes[0], output.last_hidden_state[0]
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise HetgraphError(
                f"model {self.model!r} does not find objects in a picture of {image.width} x {image.height}: {error}"
            ) from error
        classes = len(self.labels)
        if logits.shape[-1] == classes + 1:  # the last one means that there is no object
            chances = logits.softmax(dim=-1)[:, :-1]
        elif logits.shape[-1] == classes:
            chances = logits.sigmoid()
        else:
            raise HetgraphError(
                f"model {self.model!r}: expected scores of {classes} classes (and of none), got {logits.shape[-1]}"
            )
        scores, labels = chances.max(dim=-1)
        centre, size = centred[:, :2], centred[:, 2:]
        boxes = torch.cat([centre - size / 2, centre + size / 2], dim=1).clamp(0.0, 1.0)
        states = hidden[-len(logits) :]
        return tuple(t.cpu() for t in (states, scores, labels, boxes))  # type: ignore[return-value]
