"""Saving and loading models: safetensors and JSON, never pickle, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from torch import nn

from .errors import CheckpointError, HetgraphError
from .files import write_atomically
from .schema import EdgeKey, Schema

WEIGHTS = "model.safetensors"
Rules = Mapping[EdgeKey, Callable[..., Any]]
T = TypeVar("T", bound="Pretrained")


class Pretrained(nn.Module, PyTorchModelHubMixin):
    """Base of the models that can be saved: a :class:`huggingface_hub.PyTorchModelHubMixin`.

    The configuration travels in the header of the weights file, so that one rename replaces both;
    ``config.json`` beside it is for people and the hub.
    """

    schema: Schema

    def to_config(self) -> dict[str, Any]:
        """Everything that :meth:`from_config` needs, JSON-able."""
        raise NotImplementedError

    @classmethod
    def from_config(cls: type[T], config: Mapping[str, Any], rules: Rules | None = None) -> T:
        """A new model of a configuration; user-made edge rules must be passed in again."""
        raise NotImplementedError

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        **options: Any,
    ) -> str | None:
        """Write ``model.safetensors``, ``config.json`` and a model card into a folder.

        Raises:
            CheckpointError: a file could not be written; a model that was there before is still whole.
        """
        folder = Path(save_directory)
        config = {"class": type(self).__name__, **self.to_config()}
        state = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        write_atomically(
            folder / WEIGHTS, safetensors.torch.save(state, {"hetgraph": json.dumps(config)}), CheckpointError
        )
        write_atomically(folder / "config.json", json.dumps({"hetgraph": config}, indent=2), CheckpointError)
        if not (folder / "README.md").exists():
            card = options.pop("model_card_kwargs", None) or {}
            write_atomically(folder / "README.md", str(self.generate_model_card(**card)), CheckpointError)
        if push_to_hub:
            return self.push_to_hub(repo_id=repo_id or folder.name, **options)
        return None

    @classmethod
    def from_pretrained(
        cls: type[T],
        pretrained_model_name_or_path: str | Path,
        *,
        rules: Rules | None = None,
        schema: Schema | None = None,
        map_location: str = "cpu",
        local_files_only: bool = True,
        **download: Any,
    ) -> T:
        """Load a model from a folder, or from the hub if asked.

        Args:
            pretrained_model_name_or_path: a folder that :meth:`save_pretrained` wrote, or a hub id.
            rules: user-made edge rules by edge key, the functions the model was saved with.
            schema: refuse a checkpoint of any other schema.
            map_location: device that the weights are read to.
            local_files_only: False allows a download from the hub.
            **download: ``revision``, ``token``, ``cache_dir`` and ``force_download``, for the hub.

        Raises:
            CheckpointError: nothing there, damaged, of another class or schema.
        """
        unknown = sorted(set(download) - {"revision", "token", "cache_dir", "force_download"})
        if unknown:
            raise TypeError(f"from_pretrained() has no argument {unknown[0]!r}")
        options: dict[str, Any] = {"rules": rules, "schema": schema, "map_location": map_location}
        if Path(pretrained_model_name_or_path).is_dir():
            # past the mixin, which would read config.json: a damaged or missing one must not matter
            return cls._from_pretrained(model_id=str(pretrained_model_name_or_path), **options)
        if local_files_only:
            raise CheckpointError(
                f"no folder {str(pretrained_model_name_or_path)!r} with a model "
                "(pass local_files_only=False to fetch from the hub)"
            )
        return super().from_pretrained(
            pretrained_model_name_or_path, local_files_only=local_files_only, **options, **download
        )

    @classmethod
    def _from_pretrained(
        cls: type[T],
        *,
        model_id: str,
        rules: Rules | None = None,
        schema: Schema | None = None,
        map_location: str = "cpu",
        **download: Any,
    ) -> T:
        path = Path(model_id) / WEIGHTS
        if not Path(model_id).is_dir():
            path = Path(hf_hub_download(repo_id=model_id, filename=WEIGHTS, **download))
        if not path.is_file():
            raise CheckpointError(f"no {WEIGHTS} in {model_id}")
        try:
            with safetensors.safe_open(path, framework="pt", device=map_location) as file:
                header = (file.metadata() or {}).get("hetgraph")
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (safetensors.SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is damaged: {error}") from error
        if header is None:
            raise CheckpointError(f"{path} was not written by hetgraph: its header has no configuration")
        try:
            config = json.loads(header)
            saved = config.pop("class")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path}: the configuration in its header is damaged: {error}") from error
        if saved != cls.__name__:
            raise CheckpointError(f"{path} holds a {saved}, not a {cls.__name__}")
        try:
            model = cls.from_config(config, rules)
        except HetgraphError as error:
            raise CheckpointError(f"{path}: {error}") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path}: the configuration in its header is damaged: {error!r}") from error
        own = model.schema
        if schema is not None and schema != own:
            raise CheckpointError(f"{path} is of another schema: {own.difference(schema)}")
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise CheckpointError(f"{path} does not fit its own configuration: {error}") from error
        return model


def schema_of(config: Mapping[str, Any], rules: Rules | None) -> Schema:
    """The schema in a configuration, its fingerprint checked."""
    schema = Schema.from_json(config["schema"], rules)
    if schema.fingerprint != config["fingerprint"]:
        raise CheckpointError(
            f"its schema has fingerprint {schema.fingerprint}, it was saved with {config['fingerprint']}"
        )
    return schema
