"""The program as the tests call it: in this process, with what it printed and how it ended."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from fusionrun.cli.main import make_app


def fusionrun(*arguments: object) -> Result:
    return CliRunner().invoke(make_app(), [str(argument) for argument in arguments])
