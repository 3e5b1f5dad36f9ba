from __future__ import annotations

import inspect

import pytest

from tellmeter import errors


def test_a_missing_extra_says_the_exact_cure() -> None:
    with pytest.raises(ImportError, match=r"^rich is needed here: pip install 'tellmeter\[cli\]'$"):
        raise errors.MissingExtra("rich", "cli")


def test_every_error_has_the_one_base_and_is_in_the_tree() -> None:
    found = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]
    assert len(found) >= 5
    for kind in found:
        assert issubclass(kind, errors.TellmeterError)
        assert kind.__name__ in errors.__doc__


def test_errors_are_the_standard_librarys_too() -> None:
    assert issubclass(errors.ConfigError, ValueError)
    assert issubclass(errors.SchemaTooNew, errors.StoreError)
    assert issubclass(errors.StoreError, OSError)
