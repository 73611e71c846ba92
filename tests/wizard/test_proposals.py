"""What lies in a folder suggests how its application is started."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionagent.config import NAME
from orionagent.wizard.proposals import propose_commands, propose_name


def commands(files: dict[str, str]) -> list[str]:
    return [proposal.command for proposal in propose_commands(files.get)]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, []),
        ({"package.json": '{"scripts": {"start": "node dist/index.js"}}'}, ["node dist/index.js", "npm start"]),
        ({"package.json": '{"scripts": {"start": "next start", "serve": "x"}}'}, ["npm start", "npm run serve"]),
        ({"package.json": '{"scripts": {"start": "node a.js && node b.js"}}'}, ["npm start"]),
        ({"package.json": '{"main": "lib/main.js"}'}, ["node lib/main.js"]),
        ({"package.json": "{"}, []),
        ({"package.json": "[]"}, []),
        ({"Procfile": "worker: python w.py\nweb:  gunicorn app:app \n# x\n"}, ["gunicorn app:app", "python w.py"]),
        ({"pyproject.toml": '[project.scripts]\nshop = "shop:main"\n'}, ["shop"]),
        ({"pyproject.toml": '[tool.poetry.scripts]\nshop = "shop:main"\n'}, ["shop"]),
        ({"pyproject.toml": "tool = 3"}, []),
        ({"Makefile": "all: x\nrun: all\n\t./x\nstart := 3\n"}, ["make run"]),
        ({"manage.py": "", "app.py": ""}, ["python3 manage.py runserver --noreload"]),
        ({"app.py": "", "server.js": ""}, ["python3 app.py", "node server.js"]),
        ({"Procfile": "web: npm start", "package.json": '{"scripts": {"start": "x"}}'}, ["npm start"]),
    ],
)
def test_the_likeliest_command_comes_first(files: dict[str, str], expected: list[str]) -> None:
    assert commands(files) == expected


@given(st.dictionaries(st.sampled_from(["package.json", "Procfile", "pyproject.toml", "Makefile"]), st.text()))
def test_no_file_is_too_odd_to_look_at(files: dict[str, str]) -> None:
    assert all(command.strip() for command in commands(files))


KEYS = st.sampled_from(["scripts", "start", "main"])
PACKAGES = st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(KEYS, inner))


@given(PACKAGES)
def test_no_package_json_is_too_odd(package: object) -> None:
    assert all(command.strip() for command in commands({"package.json": json.dumps(package)}))


@pytest.mark.parametrize(
    ("folder", "name"), [("/opt/myapp", "myapp"), ("/srv/My App_2/", "my-app-2"), ("/", ""), ("/opt/--", "")]
)
def test_a_folder_s_name_suggests_the_script_s(folder: str, name: str) -> None:
    assert propose_name(folder) == name


@given(st.text())
def test_a_proposed_name_is_a_good_one_or_none(folder: str) -> None:
    name = propose_name(folder)
    assert not name or (NAME.fullmatch(name) and len(name) <= 64)
