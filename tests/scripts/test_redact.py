"""Secrets are replaced before anything is kept or sent."""

import pytest

from orionagent.errors import ConfigError
from orionagent.scripts.redact import Redactor

SECRETS = [
    ("Authorization: Bearer abcdefgh.ijkl-mnop_qrst==", "abcdefgh"),
    ("authorization: bearer abcdefghijkl", "abcdefghijkl"),
    ("AUTHORIZATION: BEARER abcdefghijkl", "abcdefghijkl"),
    ("key AKIAIOSFODNN7EXAMPLE used", "AKIAIOSFODNN7EXAMPLE"),
    ("key ASIAIOSFODNN7EXAMPLE used", "ASIAIOSFODNN7EXAMPLE"),
    ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG", "wJalr"),
    ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG", "wJalr"),
    ('{"secretAccessKey":"wJalrXUtnFEMI"}', "wJalr"),
    ("login user=joe password=hunter2 ok", "hunter2"),
    ("PASSWORD=hunter2", "hunter2"),
    ("password='hunter two'", "hunter"),
    ('{"user":"joe","password":"hunter two"}', "hunter"),
    (r'{"password":"a\"hunter"}', "hunter"),
    (r'{"msg":"password=\"hunter two\" given"}', "hunter"),
    ("db_password: hunter2", "hunter2"),
    ("passwd=hunter2", "hunter2"),
    ("postgres://x?user=joe&password=hunter2&ssl=1", "hunter2"),
]


@pytest.mark.parametrize(("line", "secret"), SECRETS)
def test_the_default_patterns_find_the_usual_secrets(line: str, secret: str) -> None:
    assert secret in line
    redacted = Redactor().redact(line)
    assert secret not in redacted
    assert "[redacted]" in redacted


@pytest.mark.parametrize(("line", "secret"), SECRETS)
def test_one_secret_among_many_plain_lines_is_found(line: str, secret: str) -> None:
    lines = ["the quick brown fox"] * 500 + [line] + ["jumps over"] * 500
    Redactor().redact_lines("\n".join(lines).encode(), lines)
    assert secret not in "\n".join(lines)
    assert lines.count("the quick brown fox") == 500


def test_what_surrounds_a_secret_stays() -> None:
    assert Redactor().redact("login user=joe password=hunter2, ok") == "login user=joe password=[redacted], ok"
    assert Redactor().redact('{"password":"x","a":1}') == '{"password":"[redacted]","a":1}'


@pytest.mark.parametrize("line", ["the bearer of this", "the secret is out", "a password is needed", "AKIA"])
def test_ordinary_sentences_stay(line: str) -> None:
    assert Redactor().redact(line) == line


def test_redacting_twice_changes_nothing_more() -> None:
    for line, _ in SECRETS:
        once = Redactor().redact(line)
        assert Redactor().redact(once) == once


def test_own_patterns_replace_the_defaults_and_an_empty_list_switches_them_off() -> None:
    assert Redactor([r"\d{16}"]).redact("card 1234567812345678 password=x") == "card [redacted] password=x"
    assert Redactor([]).redact("password=x") == "password=x"
    lines = ["card 1234567812345678", "none"]
    Redactor([r"\d{16}"]).redact_lines(b"any", lines)
    assert lines == ["card [redacted]", "none"]


def test_a_pattern_that_is_no_regular_expression_is_named() -> None:
    with pytest.raises(ConfigError, match=r"cannot use the redact pattern '\('"):
        Redactor(["("])
