import subprocess
import sys
from importlib import import_module

import pytest

import tellmeter.testing


def test_every_public_name_is_the_one_of_its_file():
    assert tellmeter.testing.__all__ == sorted(tellmeter.testing._WHERE) == dir(tellmeter.testing)
    for name, module in tellmeter.testing._WHERE.items():
        assert getattr(tellmeter.testing, name) is getattr(import_module(f"tellmeter.testing.{module}"), name)
    with pytest.raises(AttributeError, match="Nothing"):
        tellmeter.testing.Nothing  # noqa: B018


def test_all_but_the_contract_works_without_pytest():
    code = (
        "import sys; sys.modules['pytest'] = None; import tellmeter.testing as kit; "
        "[getattr(kit, name) for name in dir(kit) if name != 'SinkContract']"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
