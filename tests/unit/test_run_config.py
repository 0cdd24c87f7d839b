"""Hyperparameters become flat attributes without credentials."""

import argparse
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pytest
import torch

from nissa.run.run_config import HIDDEN, flatten
from tests.cases import for_each


@dataclass
class Options:
    lr: float = 0.1
    layers: tuple[int, ...] = (2, 3)


@for_each(
    "given, flat",
    [
        ({"a": {"b": {"c": 1}}}, {"a.b.c": 1}),
        (Options(), {"lr": 0.1, "layers": [2, 3]}),
        ({"options": Options()}, {"options.lr": 0.1, "options.layers": [2, 3]}),
        (argparse.Namespace(lr=0.1, amp=True), {"lr": 0.1, "amp": True}),
        ({"mixed": [1, 2.5]}, {"mixed": [1.0, 2.5]}),
        ({"mixed": [1, "a", None]}, {"mixed": ["1", "a", "None"]}),
        ({"none": None, "nothing": {}, "inf": float("inf")}, {"none": "None", "nothing": "{}", "inf": "inf"}),
        ({"dtype": torch.bfloat16, "path": PurePosixPath("a/b")}, {"dtype": "torch.bfloat16", "path": "a/b"}),
        ({"weights": torch.ones(3)}, {"weights": "<Tensor (3,)>"}),
        ({1: 2}, {"1": 2}),
    ],
)
def test_values_become_attributes(given: Any, flat: dict[str, Any]) -> None:
    assert flatten(given, 100) == flat


@for_each(
    "name", ["hf_token", "apiKey", "WANDB_API_KEY", "db.password", "Authorization", "client-secret", "access_key"]
)
def test_a_credential_is_hidden_by_its_name(name: str) -> None:
    assert flatten({name: "value"}, 100) == {name: HIDDEN}
    assert flatten({"x": {name: {"inner": "value"}}}, 100) == {f"x.{name}.inner": HIDDEN}


@for_each(
    "name, value", [("tokenizer", "gpt2"), ("max_tokens", 8), ("token_limit", 5), ("pad_token", "<pad>"), ("keys", "a")]
)
def test_a_hyperparameter_with_a_similar_name_is_kept(name: str, value: Any) -> None:
    assert flatten({name: value}, 100) == {name: value}


@for_each(
    "text",
    [
        "https://user:sesame@host/x", "https://host/x?token=sesame", "Bearer sesame", "password='sesame'",
        '{"api_key": "sesame"}', "Namespace(secret='sesame')", "sk-sesamesesamesesame", "hf_sesamesesamesesame",
    ],
)  # fmt: skip
def test_a_credential_within_a_text_is_hidden(text: str) -> None:
    for value in (text, [text, 1]):
        found = str(flatten({"value": value}, 100))
        assert "sesame" not in found
        assert HIDDEN in found


def test_it_is_bounded_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    assert list(flatten({str(number): number for number in range(5)}, 2)) == ["0", "1"]
    assert "raise limits.max_run_config" in caplog.text
    assert len(str(flatten({"text": "x" * 1000}, 5)["text"])) == 256
    assert len(str(flatten({"list": list(range(1000))}, 5)["list"])) == 256
