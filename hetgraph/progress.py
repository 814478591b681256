"""The progress bar of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class TrainingBar:
    """A progress bar over all steps of all epochs, or nothing."""

    def __init__(self, shown: bool, epochs: int, steps: int) -> None:
        self.epochs, self.steps = epochs, steps
        self.bar: Any = None
        if shown:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self.bar = Progress(
                TextColumn("[bold]epoch {task.fields[epoch]}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
            )

    def __enter__(self) -> TrainingBar:
        if self.bar is not None:
            self.bar.start()
            self.task = self.bar.add_task("fit", total=self.epochs * self.steps, epoch=f"1/{self.epochs}", note="")
        return self

    def step(self, epoch: int, loss: float, valid: Mapping[str, float]) -> None:
        """One step is done: the loss so far in its epoch, and the last validation metrics, if there are any."""
        if self.bar is None:
            return
        note = f"loss {loss:.3f}"
        for name, value in list(valid.items())[:1]:
            note += f"  valid {name} {value:.3f}"
        self.bar.update(self.task, advance=1, epoch=f"{epoch + 1}/{self.epochs}", note=note)

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()
