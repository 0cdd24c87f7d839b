"""The command line of a process has no credentials."""

import pytest

from nissa.run.command_line import MOST_ARGUMENTS, command_line
from tests.cases import for_each

SECRET = "s3cr3t-value"  # noqa: S105 - of nothing
HIDING = [
    ["--hf-token", SECRET],
    ["--hf_token", SECRET],
    ["-token", SECRET],
    [f"--api-key={SECRET}"],
    ["--apiKey", SECRET],
    [f"db.password={SECRET}"],
    ["--password", SECRET],
    [f"https://user:{SECRET}@host/data"],
    [f"s3://bucket/data?signature={SECRET}"],
    [f"https://host/data?anything={SECRET}#x"],
    ["--header", f"Authorization: Bearer {SECRET}"],
    [f'{{"token": "{SECRET}"}}'],
    ["-c", f"login(token='{SECRET}')"],
    ["--hub", "hf_abcdefghijklmnop1234"],
    ["--aws", "AKIAABCDEFGHIJKLMNOP"],
]


@for_each("arguments", HIDING, ids=str)
def test_credentials_are_hidden(arguments: list[str]) -> None:
    shown = " ".join(command_line(["python", "train.py", *arguments, "--lr", "0.1"], {}))
    assert SECRET not in shown
    assert "hf_abc" not in shown
    assert "AKIA" not in shown
    assert shown.startswith("python train.py ")
    assert shown.endswith(" --lr 0.1")


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD", "OTEL_EXPORTER_OTLP_HEADERS"]
)
def test_the_value_of_a_secret_variable_is_hidden_wherever_it_is(name: str) -> None:
    value = f"x-api={SECRET}" if name.endswith("HEADERS") else SECRET
    shown = command_line(["python", "train.py", SECRET, f"--where=a/{SECRET}/b"], {name: value})
    assert SECRET not in " ".join(shown)


@for_each(
    "arguments",
    [
        ["--lr", "0.1", "--batch-size=64", "--tokenizer", "bert"],
        ["--max-token", "512"],
        ["--token-limit=7"],
        ["--use-auth-token", "--lr", "0.1"],
        ["/home/me/project/train.py", "--name", "run 1"],
        ["+model.layers=[1,2]", "optimizer=adam"],
    ],
    ids=str,
)
def test_what_is_no_credential_is_kept(arguments: list[str]) -> None:
    environ = {"PWD": "/home/me/project", "TOKENIZERS_PARALLELISM": "false", "USE_TOKEN": "true"}
    assert command_line(arguments, environ) == tuple(arguments)


def test_a_command_line_is_bounded_and_printable() -> None:
    shown = command_line(["python", "x" * 5_000, "\x1b[2J", *map(str, range(1_000))], {})
    assert len(shown) == MOST_ARGUMENTS + 1
    assert shown[-1] == "…"
    assert max(map(len, shown)) <= 300
    assert all(each.isprintable() for each in shown)
