"""examples/README.md names every example, and each of its commands is one that the script takes."""

import re
import shlex
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
README = (EXAMPLES / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"`python examples/([^`]+)`", README)


def test_every_script_has_a_command():
    assert {shlex.split(command)[0] for command in COMMANDS} == {path.name for path in EXAMPLES.glob("*.py")}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_of_the_command_are_options_of_the_script(command, example, capsys):
    script, *options = shlex.split(command)
    if script == "first_model.py":
        assert not options
        return
    module = example(script.removesuffix(".py"))
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "--backend" in shown
    assert all(option in shown for option in options if option.startswith("--"))


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", README))
def test_every_link_leads_somewhere(link):
    assert (EXAMPLES / link).exists()
