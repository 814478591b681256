"""Settings that suit a data set, the same ones for all fusion methods; ``hetgraph compare`` starts from them.

Found on validation parts (for ``mosi_bclstm``, which has none, by ``benchmarks/sentiment_settings.py`` inside its
training part), with the method ``graph``. An option that is given counts instead.
"""

from __future__ import annotations

from typing import Any

# the questions of one picture in ten choose an epoch roughly: weights are averaged. A second layer learns more slowly
# and ends lower (validation accuracy 0.23 against 0.29 with one)
_DAQUAR: dict[str, Any] = {
    "width": 128,
    "layers": 1,
    "norm": True,
    "epochs": 10,
    "patience": 10,
    "batch_size": 64,
    "lr": (1e-3,),
    "dropout": (0.4,),
    "modality_dropout": 0.0,
    "average": 0.98,
}
_VQA_RAD: dict[str, Any] = {
    "width": 128,
    "layers": 1,
    "norm": True,
    "epochs": 16,
    "patience": 16,
    "batch_size": 32,
    "lr": (2e-3,),
    "dropout": (0.3,),
    "modality_dropout": 0.0,
    "average": 0.98,
}

SUGGESTED: dict[str, dict[str, Any]] = {
    "mosi_bclstm": {
        "width": 128,
        "epochs": 20,
        "batch_size": 16,
        "lr": (5e-4,),
        "dropout": (0.5,),
        "modality_dropout": 0.0,
        "weight_decay": 1e-4,
        "warmup": 0.0,
        "schedule": "constant",
        "clip": 5.0,
        "feature_swap": {"text": 0.3, "video": 0.95},
        "average": 0.98,
    },
    # averaged, because the best epoch of 229 noisy validation scores is otherwise often one of the first; the voice is
    # what the training part is learnt by heart from: mostly taken away or another utterance's
    "mosi_standard": {
        "width": 128,
        "epochs": 20,
        "patience": 10,
        "lr": (1e-3,),
        "dropout": (0.1,),
        "average": 0.99,
        "modality_dropout": {"audio": 0.7},
        "feature_swap": {"audio": 0.9},
    },
    "av_digits": {"epochs": 15, "patience": 5, "batch_size": 64, "dropout": (0.1,)},
    "tuxpaint": {"epochs": 20, "patience": 5, "lr": (1e-3,), "dropout": (0.1,)},
    "scenes": {"epochs": 6, "patience": 4, "batch_size": 48, "lr": (2e-3,), "dropout": (0.0,)},
    "daquar": _DAQUAR,
    "daquar_all": _DAQUAR,
    # what is recalled is answers already: the plain network reads them as they are
    "daquar_recall": {**_DAQUAR, "direct": 256, "dropout": (0.5,)},
    "vqa_rad": _VQA_RAD,
    "vqa_rad_disjoint": _VQA_RAD,
    # many narrow heads: whether a look hears its word and its cell, and a place both its looks, is then not left to
    # a few weights drawn at the start. With 4 heads and a rate of 1e-3 one seed in two learns training pictures by
    # heart instead
    "shapes": {
        "layers": 2,
        "heads": 16,
        "epochs": 2,
        "batch_size": 64,
        "lr": (5e-4,),
        "dropout": (0.0,),
        "modality_dropout": 0.0,
    },
}
"""Data set -> fields of :class:`hetgraph.compare.Comparison` and of its training settings."""
