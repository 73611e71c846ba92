"""Environment files are read as people write them for other tools."""

import os
from pathlib import Path

import pytest

from orionagent.envfile import read_env_file
from orionagent.errors import ConfigError


def read(root: Path, text: str) -> dict[str, str]:
    file = root / "env"
    file.write_text(text, encoding="utf-8", newline="")
    return read_env_file(str(file))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# c\n\n  # d\nA=1", {"A": "1"}),
        ("export A=1\nexport\tB=2\n", {"A": "1", "B": "2"}),
        ("A=two words  \n", {"A": "two words"}),
        ("A = spaced \n", {"A": "spaced"}),
        ("A=\nB=  \nC= # nothing\n", {"A": "", "B": "", "C": ""}),
        ("A=a=b==\n", {"A": "a=b=="}),
        ("A=x#y # z\n", {"A": "x#y"}),
        ("A=#x\n", {"A": "#x"}),
        ("A='# $B \\n' # c\n", {"A": "# $B \\n"}),
        ('A="a\\n\\t\\"b\\" \\\\ \\$C \\d"\n', {"A": 'a\n\t"b" \\ $C \\d'}),
        ('A="two\nlines"\nB=1\n', {"A": "two\nlines", "B": "1"}),
        ("A=it's\n", {"A": "it's"}),
        ("A=1\r\nB='2'\r\n", {"A": "1", "B": "2"}),
        ("A=1\nA=2\n", {"A": "2"}),
        ("\ufeffA=ä\n", {"A": "ä"}),
        ("a.b=1\n_X9=2", {"a.b": "1", "_X9": "2"}),
    ],
)
def test_what_other_tools_take_is_taken(root: Path, text: str, expected: dict[str, str]) -> None:
    assert read(root, text) == expected


@pytest.mark.parametrize(
    "text", ["A=1\nsecret nonsense\n", "A=1\n9X=secret\n", 'A=1\nB="secret\n', "A=1\nB='s' ecret\n", "A=1\n=secret\n"]
)
def test_a_line_that_is_no_assignment_is_named_without_repeating_it(root: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="line 2") as caught:
        read(root, text)
    assert "secret" not in caught.value.message


def test_a_missing_file_a_folder_a_pipe_and_binary_content_are_refused(root: Path) -> None:
    (root / "folder").mkdir()
    os.mkfifo(root / "pipe")
    (root / "binary").write_bytes(b"A=1\nB=\xff\n")
    (root / "nul").write_bytes(b"A=\0\n")
    for name, reason in (
        ("none", "no such file"),
        ("folder", "regular"),
        ("pipe", "regular"),
        ("binary", "line 2"),
        ("nul", "NUL"),
    ):
        with pytest.raises(ConfigError, match=reason):
            read_env_file(str(root / name))
