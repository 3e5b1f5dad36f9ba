from __future__ import annotations

from inspect import ismodule

import pytest

import tellmeter
from tellmeter import sinks


@pytest.mark.parametrize("package", [tellmeter, sinks])
def test_public_names_are_sorted_complete_and_load(package) -> None:
    assert sorted(package.__all__) == sorted(package._WHERE)  # that they are in order, ruff sees to
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = package.nonsense


def test_nothing_public_is_left_out_of_all() -> None:
    for name in tellmeter.__all__:
        getattr(tellmeter, name)
    found = {name for name, value in vars(tellmeter).items() if not name.startswith("_") and not ismodule(value)}
    assert found - {"TYPE_CHECKING", "Any", "annotations", "import_module"} == set(tellmeter.__all__)
